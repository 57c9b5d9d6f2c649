"""Make neural networks cheaper to run, and know in joules and bytes how much cheaper."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.codec import open
    from compress.estimator import estimate
    from compress.model import Model
    from compress.pipeline import Pipeline, run
    from compress.source import load

__all__ = ["Model", "Pipeline", "estimate", "load", "open", "run"]

_HOMES = {
    "Model": "model",
    "Pipeline": "pipeline",
    "estimate": "estimator",
    "load": "source",
    "open": "codec",
    "run": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch and ONNX are slow to load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
