"""What a recipe points at: models, functions and hardware profiles. They are found, never run."""

from __future__ import annotations

import os
import re
import symtable
from dataclasses import replace
from pathlib import Path

from compress.errors import ModelError, did_you_mean
from compress.estimator import files
from compress.recipe.document import Node
from compress.source import locate

# One name without dots, since finding an inner package would import the outer one; and no ".." in the path.
_PACKAGE = re.compile(r"package:[A-Za-z_][A-Za-z0-9_]*(/(?!\.\.(/|$))[^/]+)+/?")


def resolve(node: Node, home: Path, steps: tuple[int | str, ...] = ()) -> Node:
    """Return the recipe `node` with every reference checked, and made relative to the folder `home`.

    Profiles given as a file become paths that open from the current folder.

    Raises:
        RecipeError: a file, function, package or profile does not exist.
    """
    if isinstance(node.value, dict):
        entries = node.value.items()
        return replace(node, value={key: resolve(item, home, (*steps, key)) for key, item in entries})
    if isinstance(node.value, tuple):
        items = enumerate(node.value)
        return replace(node, value=tuple(resolve(item, home, (*steps, i)) for i, item in items))
    if not isinstance(node.value, str):
        return node
    match steps:
        case ("model",):
            return _model(_rebased(node, home), home)
        case ("data",) | ("data", "calibration" | "evaluation"):
            return _function(_rebased(node, home), home)
        case ("metric",) | ("metric", "name") if ".py" in node.value:
            return _function(_rebased(node, home), home)
        case ("hardware", _) | ("budget" | "search", "hardware") | ("variants", _, "budget", "hardware"):
            return _hardware(_rebased(node, home) if files.is_file(node.value) else node, home)
    return node


def _rebased(node: Node, home: Path) -> Node:
    """Write a path that another recipe named, which this one extends, as seen from `home`."""
    text, folder = str(node.value), node.place.path.parent
    if folder == home or text.startswith(("package:", "~")) or Path(text).is_absolute():
        return node
    return replace(node, value=os.path.relpath(folder / text, home))


def _model(node: Node, home: Path) -> Node:
    text = str(node.value)
    if ".py:" in text:
        return _function(node, home)
    if text.startswith("package:") and not _PACKAGE.fullmatch(text):
        raise node.place.error(f"{text!r} should be package:NAME/inner/path, without dots in NAME or '..'")
    try:
        path = locate(text, home)
    except ModelError as error:
        raise node.place.error(f"{error}{_alike(home / text)}") from error
    if path.is_dir() and not (path / "config.json").is_file():
        raise node.place.error(f"{path}: a folder is a model only with a config.json (Hugging Face)")
    if path.suffix == ".py":
        raise node.place.error(f"{text!r} names no function; write {text}:function")
    if path.is_file() and path.suffix not in (".onnx", ".pt2"):
        raise node.place.error(
            f"{path}: a model is an .onnx or .pt2 file, a Hugging Face folder, or file.py:function"
        )
    return node


def _function(node: Node, home: Path) -> Node:
    file, dot_py, function = str(node.value).rpartition(".py:")
    if not dot_py or not function:
        raise node.place.error(f"{node.value!r} should be file.py:function")
    path = home / f"{file}.py"
    try:
        table = symtable.symtable(path.read_text(encoding="utf-8-sig"), str(path), "exec")
    except OSError as error:
        raise node.place.error(f"{path}: {error.strerror}{_alike(path)}") from error
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise node.place.error(f"{path}{line}: not valid Python: {error}") from error
    defined = [name.get_name() for name in table.get_symbols() if name.is_assigned() or name.is_imported()]
    if function not in defined:
        raise node.place.error(f"{path} defines no {function!r}{did_you_mean(function, defined)}")
    return node


def _hardware(node: Node, home: Path) -> Node:
    text = str(node.value)
    if files.is_file(text):
        path = home / text
        if not path.is_file():
            raise node.place.error(f"{path}: no such hardware profile{_alike(path)}")
        return replace(node, value=str(path))
    if text not in files.ids():
        raise node.place.error(f"unknown hardware {text!r}{did_you_mean(text, files.ids())}")
    return node


def _alike(path: Path) -> str:
    """Suggest another file of the same kind in the same folder."""
    return did_you_mean(path.name, (other.name for other in path.parent.glob(f"*{path.suffix}")))
