"""compress search: a model and data in, a frontier out; what is wrong is told in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = """
import numpy as np

def batches():
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = rng.normal(size=(16, 256)).astype(np.float32)
        yield {"x": x}, (x.mean(1) > 0).astype(int)
"""


@pytest.mark.usefixtures("linear")
def test_a_frontier_is_printed_and_written(call: Callable[..., Any]) -> None:
    Path("data.py").write_text(DATA)
    found = call(
        "search", "linear.onnx", "--data", "data.py:batches", "--hardware", "gap9", "--evaluations", "3"
    )
    assert found.code == 0
    assert "search-1" in found.out
    written = Path("runs/search/variants.yaml").read_text()
    assert written.startswith("variants:\n  search-") and "per-layer" in written
    assert Path("runs/search/search-1/model.onnx").exists()


@pytest.mark.usefixtures("linear")
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--hardware", "stm32u57"], "unknown hardware 'stm32u57'; did you mean 'stm32u575'?"),
        (["--limit", "flash"], "--limit 'flash' has no '='; write it as flash=400kB"),
        (["--limit", "flash=3J"], "'J' is not a unit of flash"),
        (["--minimise", "joules"], "minimise"),
        (["--max-drop", "1%", "--metric", "acuracy"], "did you mean 'accuracy'?"),
    ],
)
def test_wrong_options_are_one_line(call: Callable[..., Any], options: list[str], complaint: str) -> None:
    Path("data.py").write_text(DATA)
    found = call("search", "linear.onnx", "--data", "data.py:batches", *options)
    assert found.code == 2
    assert complaint in found.err
    assert found.err.count("\n") == 1
