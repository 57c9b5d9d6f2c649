"""Closeness: every variant beside the outputs that the original gave once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from scipy import stats

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


def test_the_least_is_the_lower_end_of_students_interval(build: Callable[..., Any]) -> None:
    """A gain on the first of two features: its share of the signal decides the noise of a batch."""
    text = "g (float[N,2] x) => (float[N,2] y) { y = MatMul(x, w) }"
    gain = np.diag([1.1, 1]).astype(np.float32)
    model, louder = (ir.from_proto(build(text, w=w)) for w in (np.eye(2, dtype=np.float32), gain))
    shares = [0.3, 0.4, 0.5, 0.8]
    batches = [{"x": np.sqrt(np.float32([[share, 1 - share]]))} for share in shares]
    noise = 0.01 * np.array(shares)
    wanted = noise.mean() + stats.t.ppf(0.95, 3) * noise.std(ddof=1) / 2
    closeness = Closeness(model, batches)
    assert closeness.least(louder) == pytest.approx(-10 * np.log10(wanted), abs=1e-3)
    assert closeness.least(louder) < closeness(louder)
    assert closeness.least(model) == np.inf
    assert Closeness(model, batches[:1]).least(louder) == pytest.approx(-10 * np.log10(noise[0]), abs=1e-3)
