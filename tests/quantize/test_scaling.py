"""Scales move from the inputs of a layer into what makes them, and the outputs stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import compress
from compress.graph.linear import linear_layers
from compress.model import Model
from compress.quantize.scaling import input_axis, is_depthwise, multiply, source, takes_scales

# ruff: noqa: E501  (a graph a line)


def last_and_source(model: Model) -> tuple[Any, Any]:
    own = {layer.node: layer for layer in linear_layers(model.graph)}
    last = list(own.values())[-1]
    return last, source([last], own)


@pytest.mark.parametrize(
    ("text", "weights", "size", "operator"),
    [
        ("g (float[N,6] x) => (float[N,5] y) { a = Gemm(x, w, b) r = Relu(a) y = MatMul(r, v) }", {"w": (6, 8), "b": (8,), "v": (8, 5)}, (3, 6), "Gemm"),
        ("g (float[N,6,5,5] x) => (float[N,5,2,2] y) { a = Conv(x, w) m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) y = Conv(m, v) }", {"w": (8, 6, 1, 1), "v": (5, 8, 1, 1)}, (2, 6, 5, 5), "Conv"),
        ("g (float[N,6] x) => (float[N,5] y) { n = LayerNormalization(x, s, b) y = MatMul(n, v) }", {"s": (6,), "b": (6,), "v": (6, 5)}, (3, 6), "LayerNormalization"),
        ("g (float[N,6] x) => (float[N,5] y) { a = Sigmoid(x) m = Mul(a, s) y = MatMul(m, v) }", {"s": (6,), "v": (6, 5)}, (3, 6), "Mul"),
    ],
    ids=["linear", "pooled", "normalization", "multiplication"],
)  # fmt: skip
def test_outputs_stay_when_scales_move(
    build: Any, normal: Any, text: str, weights: Any, size: Any, operator: str
) -> None:
    model = compress.load(build(text, **{name: normal(*shape) for name, shape in weights.items()}))
    feeds = {"x": normal(*size)}
    expected = model.run(feeds)[0]
    changed = model.copy()
    last, found = last_and_source(changed)
    assert found.node.op_type == operator
    scales = np.geomspace(0.1, 10, last.array.shape[input_axis(last)]).astype(np.float32)
    found.divide(changed.graph, scales)
    multiply(last, scales)
    np.testing.assert_allclose(changed.run(feeds)[0], expected, rtol=1e-3, atol=1e-4)
    assert any((value.name or "").endswith(".scaled") for value in found.values)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N,6] x) => (float[N,5] y) { a = MatMul(x, w) r = Sigmoid(a) y = MatMul(r, v) }",
        "g (float[N,6] x) => (float[N,8] a, float[N,5] y) { a = MatMul(x, w) y = MatMul(a, v) }",
        "g (float[N,6] x) => (float[N,5] y, float[N,8] z) { a = MatMul(x, w) z = Tanh(a) y = MatMul(a, v) }",
    ],
    ids=["not homogeneous", "an output", "another reader"],
)
def test_what_scales_would_change_has_no_source(build: Any, normal: Any, text: str) -> None:
    _, found = last_and_source(compress.load(build(text, w=normal(6, 8), v=normal(8, 5))))
    assert found is None


def test_groups_take_scales_only_one_a_channel(build: Any, normal: Any) -> None:
    text = "g (float[N,8,5,5] x) => (float[N,8,5,5] y) {{ y = Conv<group={}>(x, w) }}"
    for group, depthwise, takes in ((8, True, True), (4, False, False), (1, False, True)):
        model = compress.load(build(text.format(group), w=normal(8, 8 // group, 1, 1)))
        (layer,) = linear_layers(model.graph)
        assert (is_depthwise(layer), takes_scales(layer)) == (depthwise, takes), group
