"""Packages that only some samplers need, imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from compress.errors import InputError


def needed(name: str, extra: str) -> Any:
    """Import a package of an extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"this sampler needs {name}, which is not installed: pip install 'compress-toolkit[{extra}]'"
        ) from error
