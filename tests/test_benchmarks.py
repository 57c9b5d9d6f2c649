"""What the benchmarks read of the project is there; they themselves take too long for a test."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(Path(__file__).parents[1].joinpath("benchmarks").rglob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_names_that_a_benchmark_imports_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "compress":
            module = importlib.import_module(node.module or "")
            for each in node.names:
                if not hasattr(module, each.name):  # a module of its own
                    importlib.import_module(f"{node.module}.{each.name}")
