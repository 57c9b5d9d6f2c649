"""Results to the terminal and to HTML, and the figures on their own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.report.html import write
    from compress.report.plots import (
        accuracy_vs_energy,
        bytes_by_layer,
        dram_by_layer,
        energy_by_component,
        energy_by_layer,
        roofline,
    )
    from compress.report.terminal import show, show_changes

__all__ = [
    "accuracy_vs_energy",
    "bytes_by_layer",
    "dram_by_layer",
    "energy_by_component",
    "energy_by_layer",
    "roofline",
    "show",
    "show_changes",
    "write",
]

_HOMES = {"show": "terminal", "show_changes": "terminal", "write": "html"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: Plotly and rich are slow to load."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'plots')}"), name)
