"""equalize: the outputs stay, the ranges of neighbouring layers meet, one scale a weight suffices."""

from __future__ import annotations

import numpy as np
import pytest

import compress
from compress.graph.layers import layers
from compress.passes import Equalize, Int8Static

SEPARABLE = """g (float[N,6,9,9] x) => (float[N,5] y) {
    a = Conv(x, w1, b1) r = Relu(a) p = MaxPool<kernel_shape=[2,2]>(r)
    d = Conv<group=8>(p, w2, b2) s = LeakyRelu(d) c = Conv(s, w3) e = Add(c, b3)
    q = GlobalAveragePool(e) f = Flatten(q) h = Gemm(f, w4, b4) t = Relu(h) y = MatMul(t, w5)
}"""


@pytest.fixture
def separable(build, normal):
    """Convolutions, one of them depthwise, and linear layers, with channels of very different ranges."""

    def uneven(*shape, axis=0):
        sizes = [-1 if each == axis else 1 for each in range(len(shape))]
        return normal(*shape) * np.geomspace(0.01, 10, shape[axis]).astype(np.float32).reshape(sizes)

    weights = {
        "w1": uneven(8, 6, 3, 3), "b1": normal(8), "w2": uneven(8, 1, 3, 3), "b2": normal(8),
        "w3": uneven(7, 8, 1, 1), "b3": normal(7, 1, 1), "w4": uneven(7, 9, axis=1), "b4": normal(9), "w5": normal(9, 5),
    }  # fmt: skip
    return compress.load(build(SEPARABLE, **weights), calibration=[{"x": normal(8, 6, 9, 9)}])


def test_the_outputs_stay_and_ranges_meet(separable):
    even = Equalize()(separable)
    feeds = next(separable.batches())
    np.testing.assert_allclose(even.run(feeds)[0], separable.run(feeds)[0], rtol=1e-3, atol=1e-3)
    done = [change.layer for change in even.changes if change.action]
    found = {layer.weight.name: layer.array for layer in layers(even.graph)}
    assert len(done) == 4, "each of the first four layers feeds the next"

    def ranges(weight, axis):
        return np.abs(weight).max(axis=tuple(each for each in range(weight.ndim) if each != axis))

    first, middle, last = ranges(found["w1"], 0), ranges(found["w2"], 0), ranges(found["w3"], 1)
    np.testing.assert_allclose(first, middle, rtol=0.01)
    np.testing.assert_allclose(middle, last, rtol=0.01)
    np.testing.assert_allclose(ranges(found["w4"], 1), ranges(found["w5"], 0), rtol=0.01)


@pytest.mark.parametrize("activation", ["Relu(a)", "LeakyRelu(a)", "PRelu(a, slopes)", "Abs(a)"])
@pytest.mark.parametrize("groups", [1, 8], ids=["dense", "depthwise"])
def test_what_scales_with_its_input_is_equalized_through(build, normal, activation, groups):
    text = f"""g (float[N,6,5,5] x) => (float[N,5,5,5] y) {{
        a = Conv(x, w, b) r = {activation} d = Conv<group={groups}>(r, u) s = Relu(d) y = Conv(s, v)
    }}"""
    uneven = np.geomspace(0.01, 10, 8, dtype=np.float32)
    weights = {
        "w": normal(8, 6, 1, 1) * uneven[:, None, None, None], "b": normal(8), "slopes": normal(8, 1, 1),
        "u": normal(8, 8 // groups, 1, 1), "v": normal(5, 8, 1, 1),
    }  # fmt: skip
    model = compress.load(build(text, **weights))
    even = Equalize()(model)
    assert sum(bool(change.action) for change in even.changes) == 2
    feeds = {"x": normal(2, 6, 5, 5)}
    np.testing.assert_allclose(even.run(feeds)[0], model.run(feeds)[0], rtol=1e-4, atol=1e-3)


def test_one_scale_a_weight_is_enough_afterwards(separable):
    feeds = next(separable.batches())
    wanted = separable.run(feeds)[0]
    coarse = Int8Static(per_channel=False)

    def error(model):
        return float(np.square(coarse(model).run(feeds)[0] - wanted).sum())

    assert error(Equalize()(separable)) < 0.1 * error(separable)


# ruff: noqa: E501  (a graph a line)
@pytest.mark.parametrize(
    "text",
    [
        "g (float[N,6,5,5] x) => (float[N,5,5,5] y) { a = Conv(x, w) r = Clip(a, low, high) y = Conv(r, v) }",
        "g (float[N,6,5,5] x) => (float[N,8,5,5] a, float[N,5,5,5] y) { a = Conv(x, w) y = Conv(a, v) }",
        "g (float[N,6,5,5] x) => (float[N,5,5,5] y) { a = Conv(x, w) r = Relu(a) t = Add(a, r) y = Conv(t, v) }",
        "g (float[N,6,5,5] x) => (float[N,5,5,5] y) { a = Conv(x, w) r = Sigmoid(a) y = Conv(r, v) }",
    ],
    ids=["ReLU6", "an output", "two readers", "sigmoid"],
)
def test_what_would_change_the_outputs_is_left_alone(build, normal, text):
    weights = {"w": normal(8, 6, 1, 1), "v": normal(5, 8, 1, 1), "low": np.float32(0), "high": np.float32(6)}
    model = compress.load(build(text, **weights))
    even = Equalize()(model)
    assert not any(change.action for change in even.changes)
    feeds = {"x": normal(2, 6, 5, 5)}
    np.testing.assert_array_equal(even.run(feeds)[0], model.run(feeds)[0])


def test_dead_channels_keep_their_scale_and_infinite_weights_stay(build, normal):
    text = "g (float[N,6] x) => (float[N,5] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }"
    weight = normal(6, 8)
    weight[:, 0] = 0
    model = compress.load(build(text, w=weight, v=normal(8, 5)))
    feeds = {"x": normal(2, 6)}
    np.testing.assert_allclose(Equalize()(model).run(feeds)[0], model.run(feeds)[0], rtol=1e-4, atol=1e-5)
    weight[3, 2] = np.inf
    left = Equalize()(compress.load(build(text, w=weight, v=normal(8, 5))))
    assert not any(each.action for each in left.changes)
