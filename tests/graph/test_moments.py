"""Second moments of what layers read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from compress.graph.linear import linear_layers
from compress.graph.moments import mean_squares, second_moments


def test_moments_are_means_over_the_rows_of_all_batches(build: Callable[..., Any], normal: Any) -> None:
    body = "[first] h = MatMul(x, w) r = Relu(h) [second] y = MatMul(r, v)"
    text = f"g (float[N,6] x) => (float[N,4] y) {{ {body} }}"
    first, second = normal(6, 5), normal(5, 4)
    model = ir.from_proto(build(text, w=first, v=second))
    batches = [{"x": normal(7, 6)}, {"x": normal(3, 6)}]
    found = second_moments(model, batches, list(linear_layers(model.graph)))
    x = np.concatenate([batch["x"] for batch in batches]).astype(np.float64)
    for name, rows in (("first", x), ("second", np.maximum(x @ first, 0))):
        moments = found[name].matrix().numpy()
        np.testing.assert_allclose(moments, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5)


def test_moments_of_huge_values_stay_finite(build: Callable[..., Any], normal: Any) -> None:
    text = "g (float[N,6] x) => (float[N,5] y) { [first] y = MatMul(x, w) }"
    model = ir.from_proto(build(text, w=normal(6, 5)))
    chosen, batches = list(linear_layers(model.graph)), [{"x": 1e25 * normal(7, 6)}]
    assert second_moments(model, batches, chosen)["first"].matrix().isfinite().all()
    assert mean_squares(model, batches, chosen)["first"].isfinite().all()


def test_mean_squares_are_the_diagonal_of_the_moments(build: Callable[..., Any], normal: Any) -> None:
    text = "g (float[N,6] x) => (float[N,5] y) { [first] y = MatMul(x, w) }"
    model = ir.from_proto(build(text, w=normal(6, 5)))
    batches = [{"x": normal(7, 6)}, {"x": normal(3, 6)}]
    chosen = list(linear_layers(model.graph))
    squares = mean_squares(model, batches, chosen)["first"]
    diagonal = second_moments(model, batches, chosen)["first"].matrix().diagonal()
    np.testing.assert_allclose(squares.numpy(), diagonal.numpy(), rtol=1e-5)
