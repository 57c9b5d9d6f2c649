"""Closeness: every variant beside the outputs that the original gave once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compress.data import Feeds
from compress.diagnose.closeness import Closeness
from compress.graph.session import session


def test_the_original_runs_once_a_batch(build: Callable[..., Any]) -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { y = MatMul(x, w) }"
    model, louder = (ir.from_proto(build(text, w=k * np.eye(4, dtype=np.float32))) for k in (1, 1.1))
    runs = []

    def run(feeds: Feeds) -> list[np.ndarray]:
        runs.append(feeds)
        outputs: list[np.ndarray] = session(model).run(None, feeds)
        return outputs

    batches = [{"x": np.full((1, 4), size, np.float32)} for size in (1, 2, 3)]
    closeness = Closeness(model, batches, run)
    assert [closeness(louder), closeness(louder)] == [pytest.approx(20, abs=1e-4)] * 2
    assert runs == batches
