"""smooth: outputs stay, scales go where they cost nothing, uneven channels take 8 bits well."""

from __future__ import annotations

import numpy as np
import pytest

import compress
from compress.changes import Reason
from compress.passes import Int8Static, Smooth

NETWORK = """g (float[N,6,9,9] x) => (float[N,5] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a)
    d = Conv<group=8, pads=[1,1,1,1], strides=[2,2]>(r, w2, b2) s = LeakyRelu(d)
    n = BatchNormalization(s, n1, n2, n3, n4) p = MaxPool<kernel_shape=[2,2]>(n)
    e = Conv<dilations=[2,2], pads=[2,2,2,2]>(p, w3, b3) t = Relu(e) m = Mul(t, k)
    c1 = Conv(m, w4) c2 = Conv(m, w6) c = Add(c1, c2) f = GlobalAveragePool(c) v = Flatten(f) y = Gemm<transB=1>(v, w5)
}"""


@pytest.fixture
def network(build, normal):
    """A convolutional network with activations of very different ranges behind every layer."""
    spread = np.geomspace(0.01, 10, 8).astype(np.float32)
    four = spread[:, None, None, None]
    weights = {
        "w1": normal(8, 6, 3, 3) * four, "b1": normal(8) * spread,
        "w2": normal(8, 1, 3, 3), "b2": normal(8) * spread,
        "n1": spread[::-1] / spread, "n2": normal(8), "n3": normal(8) * spread, "n4": np.ones(8, np.float32),
        "w3": normal(8, 8, 3, 3), "b3": normal(8), "k": spread[:, None, None],
        "w4": normal(9, 8, 1, 1) / spread[:, None, None], "w5": normal(5, 9),
        "w6": normal(9, 8, 1, 1) / spread[:, None, None],
    }  # fmt: skip
    return compress.load(build(NETWORK, **weights), calibration=[{"x": normal(8, 6, 9, 9)} for _ in range(2)])


def test_scales_go_into_layers_normalizations_and_multiplications(network):
    smooth = Smooth(strength=1.0)(network)
    assert [node.op_type for node in smooth.graph] == [node.op_type for node in network.graph]
    assert sum("scales in" in change.action for change in smooth.changes) == 3, "one of each kind"
    for feeds in network.batches():
        wanted = network.run(feeds)[0]
        np.testing.assert_allclose(smooth.run(feeds)[0], wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_uneven_channels_take_8_bits_well_afterwards(build, normal):
    text = """g (float[N,6,9,9] x) => (float[N,5,7,7] y) {
        a = Conv(x, w) r = Relu(a) d = Conv<group=8>(r, v) y = Conv(d, u) }"""
    spread = np.geomspace(0.01, 10, 8).astype(np.float32)[:, None, None, None]
    weights = {"w": normal(8, 6, 1, 1) * spread, "v": normal(8, 1, 3, 3) / spread, "u": normal(5, 8, 1, 1)}
    feeds = {"x": normal(8, 6, 9, 9)}
    model = compress.load(build(text, **weights), calibration=[feeds])
    wanted = model.run(feeds)[0]

    def error(each):
        return float(np.square(Int8Static()(each).run(feeds)[0] - wanted).sum())

    assert error(Smooth()(model)) < 0.05 * error(model)


# ruff: noqa: E501  (a graph a line)
CLIPPED = (
    "g (float[N,6,5,5] x) => (float[N,5,5,5] y) { a = Conv(x, w) r = Clip(a, low, high) y = Conv(r, v) }"
)
TWICE = "g (float[N,6,5,5] x) => (float[N,5,5,5] y, float[N,5,3,3] z) { a = Conv(x, w) r = Relu(a) y = Conv(r, v) z = Conv(r, u) }"
SUM = "g (float[N,6,5,5] x) => (float[N,5,5,5] y) { a = Conv(x, w) b = Sigmoid(a) r = Add(a, b) y = Conv(r, v) }"


@pytest.mark.parametrize("text", [CLIPPED, TWICE, SUM], ids=["ReLU6", "two kernels", "a sum"])
@pytest.mark.parametrize("strength", [None, 1.0])
def test_scales_pass_nothing_that_would_change_the_outputs(build, normal, text, strength):
    spread = np.geomspace(0.01, 10, 8).astype(np.float32)[:, None, None, None]
    weights = {
        "w": normal(8, 6, 1, 1) * spread, "v": normal(5, 8, 1, 1) / spread[:, 0], "u": normal(5, 8, 3, 3) / spread[:, 0],
        "low": np.float32(0), "high": np.float32(6),
    }  # fmt: skip
    feeds = {"x": normal(4, 6, 5, 5)}
    model = compress.load(build(text, **weights), calibration=[feeds])
    smooth = Smooth(strength=strength)(model)
    for got, wanted in zip(smooth.run(feeds), model.run(feeds), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_mul_is_put_before_a_convolution_only_for_a_clear_gain(build, normal, rank):
    size = ",".join(["7"] * rank)
    text = f"g (float[N,8,{size}] x) => (float[N,8,{size}] y) {{ y = Conv<pads=[{','.join(['1'] * 2 * rank)}]>(x, w) }}"
    weight = normal(8, 8, *[3] * rank)
    spread = np.geomspace(0.01, 10, 8).astype(np.float32).reshape(-1, *[1] * rank)

    def smoothed(scales):
        feeds = {"x": normal(4, 8, *[7] * rank) * scales}
        model = compress.load(build(text, w=weight / scales), calibration=[feeds])
        smooth = Smooth()(model)
        wanted = model.run(feeds)[0]
        np.testing.assert_allclose(smooth.run(feeds)[0], wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())
        return [node.op_type for node in smooth.graph]

    assert smoothed(spread) == ["Mul", "Conv"]
    assert smoothed(np.ones_like(spread)) == ["Conv"]


def test_a_layer_with_groups_is_left_out_with_the_reason(build, normal):
    text = "g (float[N,6,5,5] x) => (float[N,4,5,5] y) { y = Conv<group=2>(x, w) }"
    model = compress.load(build(text, w=normal(4, 3, 1, 1)), calibration=[{"x": normal(2, 6, 5, 5)}])
    assert Smooth()(model).changes[-1].skipped == Reason.USE.because("it has groups")
