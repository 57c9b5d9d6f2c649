"""The house keeps its drawing: imports point down, and functions and files stay short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import compress

HOUSE = Path(compress.__file__).parent
ORDER = [
    *("cli", "report", "governor", "engine", "seek", "recipe", "evaluate", "passes", "quantize", "prune"),
    *("train", "estimator", "diagnose", "source", "codec", "model", "trainable", "graph", "numerics"),
]
"""Rooms from the top down, as CONTRIBUTING.md draws them; `model` is the module of that name."""
FLOOR = {"changes", "cpu", "data", "errors", "progress", "results", "units", "version"}
"""Small modules that every room may import, and that import no room."""
LONGEST_FUNCTION = 60
LONGEST_FILE = 450


@cache
def _modules() -> dict[str, ast.Module]:
    """Return every module of the package by its dotted name; stubs tell what a room loads lazily."""
    files = [*HOUSE.rglob("*.py"), *HOUSE.rglob("*.pyi")]
    return {
        ".".join(("compress", *path.relative_to(HOUSE).parts)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(files)
    }


def _room(module: str) -> str:
    """Return the room of ``compress.graph.walk`` or ``compress.graph.walk.py``: ``graph``."""
    return module.split(".")[1]


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a module imports when it runs; imports for type checkers do not run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


def _arrows() -> Iterator[Sequence[str]]:
    """Yield importing module, its room and the imported room of every arrow between two rooms."""
    known = {*ORDER, *FLOOR}
    for module, tree in _modules().items():
        for name in _imports(tree):
            ends = [_room(module), _room(name)] if name.startswith("compress.") else []
            if known.issuperset(ends) and len(set(ends)) == 2:
                yield module, *ends


def test_every_room_has_its_place() -> None:
    rooms = {path.stem for path in HOUSE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == {*ORDER, *FLOOR}, (
        "a new room has a place in ORDER of tests/test_house.py and in the drawing of CONTRIBUTING.md"
    )


def test_arrows_point_down() -> None:
    """An order of the rooms in which every import points down also leaves no circle."""
    depth = {room: place for place, room in enumerate(ORDER)} | dict.fromkeys(FLOOR, len(ORDER))
    upward = {f"{module} imports {to}" for module, room, to in _arrows() if depth[to] < depth[room]}
    assert not upward, "move the code down, or hand it what it asks for"


def test_no_pass_imports_another() -> None:
    shared = {"base", "pipeline"}
    passes = {
        name.split(".")[2] for name in _modules() if _room(name) == "passes" and name.endswith(".py")
    } - {"__init__", *shared}
    found = {
        f"{module} imports {name}"
        for module, tree in _modules().items()
        if _room(module) == "passes" and module.split(".")[2] in passes
        for name in _imports(tree)
        if name.startswith("compress.passes.") and name.split(".")[2] not in shared
    }
    assert not found, "what two passes share is a function of a room below them"


def test_functions_and_files_are_short() -> None:
    long = [
        f"{module}: {node.name}"
        for module, tree in _modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert not long, f"functions of more than {LONGEST_FUNCTION} lines"
    long = [str(path) for path in HOUSE.rglob("*.py") if len(path.read_text().splitlines()) > LONGEST_FILE]
    assert not long, f"files of more than {LONGEST_FILE} lines"


def test_imports_stand_where_a_reader_looks() -> None:
    inside = {
        f"{module}:{node.lineno}"
        for module, tree in _modules().items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert len(inside) < 40, f"imports stand at the top of a module; inside functions: {sorted(inside)}"


def test_the_drawing_is_the_one_of_contributing() -> None:
    text = (HOUSE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawing = text[text.index("## The rooms") :].split("```")[1]
    drawn = re.findall(r"^[ │]+(\w+)(?:/|\.py) ", drawing, re.MULTILINE)
    assert drawn == ORDER
