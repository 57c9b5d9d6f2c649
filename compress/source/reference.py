"""References to paths, to files of installed packages, and to functions in Python files."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

from compress.errors import InputError, ModelError, TrustError, blame, did_you_mean


def require_trust(trust: bool, risk: str) -> None:
    """Refuse to run code that comes with a model, unless the user trusts it.

    Args:
        trust: whether the user has said so.
        risk: what would run, for the message.

    Raises:
        TrustError: `trust` is False; the message is `risk` and how to give trust.
    """
    if not trust:
        raise TrustError(f"{risk}; add --trust (trust=True in Python) if you trust it")


def locate(reference: str, home: Path) -> Path:
    """Return the path that a model reference stands for: relative to `home`, or ``package:NAME/inner/path``.

    The package is found, not imported.

    Raises:
        ModelError: there is no such file, folder or package.
    """
    if reference.startswith("package:"):
        name, _, inner = reference.removeprefix("package:").partition("/")
        # Finding an inner package would import the outer one, and run its code.
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f"{reference}: no package {name!r} is installed in this environment")
        folder = Path(next(iter(spec.submodule_search_locations)))
        path = folder / inner
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{reference}: lies outside the package")
    else:
        path = home / Path(reference).expanduser()
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder")
    return path


def call(reference: str, *, home: Path, trust: bool) -> Any:
    """Return the function that ``file.py:function`` names; the path is relative to `home`.

    Raises:
        InputError: there is no such file or function, or the file fails as it is imported.
        TrustError: the file lies outside `home` and `trust` is not given.
    """
    file_name, _, function_name = reference.rpartition(":")
    path = (home / file_name).resolve()
    if not path.is_file():
        raise InputError(f"{path}: no such file (named by {reference!r})")
    if not path.is_relative_to(home.resolve()):
        require_trust(trust, f"{path}: this code would run, and it is not beside the recipe")
    module = _imported(path, path.stat().st_mtime_ns)
    if not hasattr(module, function_name):
        known = [
            name
            for name, each in vars(module).items()
            if callable(each) and getattr(each, "__module__", "") == module.__name__
        ]
        raise InputError(f"{path}: has no function {function_name!r}{did_you_mean(function_name, known)}")
    return getattr(module, function_name)


@cache
def _imported(path: Path, modified_ns: int) -> Any:
    """Import a Python file, once for each time it was modified."""
    name = f"compress_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        with blame(f"{path}: cannot be imported", InputError):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
