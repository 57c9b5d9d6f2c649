"""correct-bias: means return to the original's, whatever form the weights are stored in."""

from __future__ import annotations

import numpy as np
import pytest

import compress
from compress import Pipeline
from compress.changes import Reason
from compress.errors import DataError
from compress.graph.capture import activations
from compress.passes import CorrectBias, Equalize, Int4Weights, Int8Static, Int8Weights

CHAIN = """g (float[N,6,8,8] x) => (float[N,5] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) c = Conv<group=8>(r, w2, b2) s = Relu(c)
    q = GlobalAveragePool(s) f = Flatten(q) h = Gemm(f, w3, b3) t = Relu(h) m = MatMul(t, w4) y = Add(m, b4)
}"""


@pytest.fixture
def chain(build, normal):
    weights = {"w1": normal(8, 6, 3, 3), "w2": normal(8, 1, 3, 3), "w3": normal(8, 32), "w4": normal(32, 5)}
    biases = {"b1": normal(8), "b2": normal(8), "b3": normal(32), "b4": normal(5)}
    return compress.load(
        build(CHAIN, **weights, **biases),
        calibration=[{"x": np.abs(normal(32, 6, 8, 8))} for _ in range(3)],
    )


def shift(variant, original):
    """Return how far the means of the layers' outputs are from the original's, over their own size."""
    names = ["a", "c", "h", "y"]
    pairs = zip(
        *(activations(each.ir, names, original.batches()) for each in (variant, original)), strict=True
    )
    total = dict.fromkeys(names, 0.0)
    for ours, theirs in pairs:
        for name in names:
            axes = tuple(axis for axis in range(theirs[name].ndim) if axis != 1)
            total[name] = total[name] + ours[name].mean(axes) - theirs[name].mean(axes)
    return {name: float(np.linalg.norm(each)) for name, each in total.items()}


@pytest.mark.parametrize(
    "coarse",
    [
        Int8Static(per_channel=False, calibration="percentile", percentile=97),
        Int4Weights(group_size=32),
        Int4Weights(operators="standard", group_size=32),
    ],
    ids=repr,
)
def test_means_return_to_those_of_the_original(chain, coarse):
    rough = coarse(chain)
    mended = CorrectBias()(rough)
    done = {change.layer for change in mended.changes if change.by == "correct-bias" and change.action}
    assert len(done) == 4, mended.changes
    before, after = shift(rough, chain), shift(mended, chain)
    assert sum(after.values()) < 0.5 * sum(before.values())
    assert after["y"] < 0.5 * before["y"]
    assert mended.weight_bytes == rough.weight_bytes


def test_layers_that_cannot_be_compared_say_why(chain):
    mended = Pipeline([Equalize(), Int8Static(exclude=["w4"], store_others=False), CorrectBias()])(chain)
    reasons = {change.skipped for change in mended.changes if change.by == "correct-bias" and change.skipped}
    assert Reason.USE.because("its output is not in the original, or an earlier pass scaled it") in reasons
    assert {
        Reason.NO_GAIN.because("its weight is not quantized"),
        Reason.NO_GAIN.because("the outputs would come no closer to the original's"),
    } & reasons


def test_it_needs_calibration_data(chain):
    rough = Int8Weights()(chain)
    rough.calibration = None
    with pytest.raises(DataError, match="calibration"):
        CorrectBias()(rough)
