"""GPTQ in 8 bits: less error of outputs than rounding to the nearest, groups of convolutions included."""

import numpy as np
import pytest
import torch

import compress
from compress.graph.linear import linear_layers, store
from compress.numerics.affine import quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis
from compress.passes import Int8Static
from compress.quantize.feedback import solve, solve_changed, solve_widths
from compress.quantize.smoothing import smooth


# ruff: noqa: E501  (a graph a line)
@pytest.mark.parametrize(
    ("text", "weight", "size"),
    [
        ("g (float[N,12,9,9] x) => (float[N,12,7,7] y) { y = Conv<group=12>(x, w) }", (12, 1, 3, 3), (6, 12, 9, 9)),
        ("g (float[N,12,9,9] x) => (float[N,8,9,9] y) { y = Conv<group=4, pads=[1,1,1,1]>(x, w) }", (8, 3, 3, 3), (6, 12, 9, 9)),
        ("g (float[N,12,9,9] x) => (float[N,8,4,4] y) { y = Conv<strides=[2,2]>(x, w) }", (8, 12, 3, 3), (20, 12, 9, 9)),
        ("g (float[N,24] x) => (float[N,9] y) { y = Gemm<transB=1>(x, w) }", (9, 24), (200, 24)),
        ("g (float[N,T,24] x) => (float[N,T,9] y) { y = MatMul(x, w) }", (24, 9), (20, 10, 24)),
    ],
    ids=["depthwise", "grouped", "strided", "transposed", "linear"],
)  # fmt: skip
def test_outputs_come_closer_than_by_rounding_to_the_nearest(build, normal, text, weight, size):
    x = normal(*size)
    x = np.cumsum(x, axis=-1)  # features that go together
    model = compress.load(build(text, w=normal(*weight)), calibration=[{"x": x}])
    (layer,) = linear_layers(model.graph)
    solved = solve(model, [layer], [6])[6]["w"]
    nearest = quantize(
        torch.from_numpy(layer.array.copy()), IntegerFormat(6, PerAxis(layer.out_axis), narrow=True)
    )
    assert solved.values.shape == nearest.values.shape
    assert torch.equal(solved.scale, nearest.scale)

    def error(quantized):
        variant = model.copy()
        store(variant.graph.initializers["w"], quantized.dequantize().numpy())
        return float(np.square(variant.run({"x": x})[0] - model.run({"x": x})[0]).sum())

    assert error(solved) < 0.9 * error(nearest)


def test_learning_goes_on_from_there_and_makes_nothing_worse(build, normal):
    text = "g (float[N,T,24] x) => (float[N,T,9] y) { y = MatMul(x, w) }"
    x = np.cumsum(normal(20, 10, 24), axis=-1)
    model = compress.load(build(text, w=normal(24, 9)), calibration=[{"x": x}])
    (layer,) = linear_layers(model.graph)
    errors = []
    for learn in (False, True):
        solved = solve(model, [layer], [3], learn=learn)[3]["w"]
        errors.append(np.square(x @ (solved.dequantize().numpy() - layer.array)).sum())
    assert errors[1] <= errors[0] * 1.0001


def test_too_few_rows_are_not_fitted(build, normal):
    text = "g (float[N,24] x) => (float[N,9] y) { y = MatMul(x, w) }"
    model = compress.load(build(text, w=normal(24, 9)), calibration=[{"x": normal(5, 24)}])
    assert solve(model, list(linear_layers(model.graph)), [8]) == {8: {}}


def test_layers_and_widths_together_are_solved_as_alone(build, normal):
    text = "g (float[N,300] x) => (float[N,9] y, float[N,5] z) { y = MatMul(x, w) z = Gemm<transB=1>(x, v) }"
    weights = {"w": normal(300, 9), "v": normal(5, 300)}
    model = compress.load(build(text, **weights), calibration=[{"x": normal(400, 300)}])
    layers = list(linear_layers(model.graph))
    together = solve(model, layers, [5, 8])
    for layer in layers:
        for bits in (5, 8):
            alone = solve(model, [layer], [bits])[bits][layer.weight.name]
            found = together[bits][layer.weight.name]
            assert torch.equal(found.scale, alone.scale)
            assert (found.values != alone.values).float().mean() < 0.01


def test_a_pass_uses_it(digits):
    plain, careful = Int8Static()(digits), Int8Static(rounding="gptq")(digits)
    feeds = next(digits.batches())
    wanted = digits.run(feeds)[0]
    errors = [float(np.square(each.run(feeds)[0] - wanted).sum()) for each in (careful, plain)]
    assert errors[0] < errors[1]


def test_after_smoothing_only_layers_that_it_changed_are_solved_again(build, normal):
    text = "g (float[N,24] x) => (float[N,9] z) { [a] y = MatMul(x, w) r = Relu(y) [b] z = MatMul(r, v) }"
    x = normal(200, 24) * np.geomspace(0.01, 100, 24, dtype=np.float32)
    model = compress.load(build(text, w=normal(24, 12), v=normal(12, 9)), calibration=[{"x": x}])
    known = solve_widths(model, lambda *names: True, [7, 8])
    smoothed = model.copy()
    smooth(smoothed, lambda *names: "w" in names, 1.0)
    found = solve_changed(smoothed, lambda *names: True, model, known)
    anew = solve_widths(smoothed, lambda *names: True, [7, 8])
    for bits in (7, 8):
        assert found[bits]["v"] is known[bits]["v"]
        assert found[bits]["w"] is not known[bits]["w"]
        for name in ("v", "w"):
            assert torch.equal(found[bits][name].values, anew[bits][name].values)
