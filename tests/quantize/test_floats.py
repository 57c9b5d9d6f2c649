"""Floats of fewer bits: stored or computed, and what does not fit is left alone."""

import numpy as np
import onnx_ir as ir
import pytest

import compress
from compress.changes import Reason
from compress.passes import FloatWeights

TEXT = "g (float[N,8] x) => (float[N,8] z) { [first] y = MatMul(x, w) [second] z = MatMul(y, v) }"


@pytest.fixture
def load(build, normal):
    def make(scale=1.0):
        return compress.load(build(TEXT, w=normal(8, 8), v=normal(8, 8) * np.float32(scale)))

    return make


@pytest.mark.parametrize("compute", ["float32", "float16"])
def test_weights_halve_and_outputs_stay(load, normal, compute):
    model, x = load(), normal(3, 8)
    half = FloatWeights(compute=compute)(model)
    assert half.weight_bytes == model.weight_bytes / 2
    np.testing.assert_allclose(half.run({"x": x})[0], model.run({"x": x})[0], rtol=2e-2, atol=2e-2)


def test_weights_beyond_its_range_stay(load, normal):
    model, x = load(scale=1e6), normal(3, 8)
    half = FloatWeights()(model)
    assert half.weight_bytes == model.weight_bytes * 3 / 4
    expected = model.run({"x": x})[0]
    assert np.linalg.norm(half.run({"x": x})[0] - expected) < 1e-2 * np.linalg.norm(expected)


def test_what_is_not_finite_is_told_and_what_is_one_number_is_no_weight(build, normal):
    weight = normal(8, 4)
    weight[0, 0] = np.nan
    text = "g (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w) y = Mul(h, s) }"
    result = FloatWeights()(compress.load(build(text, w=weight, s=np.array([0.3], np.float32))))
    assert [(change.layer, change.skipped) for change in result.changes] == [("w", Reason.NOT_FINITE)]


def test_layers_left_out_compute_in_float32(load):
    half = FloatWeights(compute="float16", exclude=("second",))(load())
    second = next(node for node in half.graph if node.name == "second")
    value, weight = second.inputs
    assert (value.producer().op_type, weight.dtype) == ("Cast", ir.DataType.FLOAT)
    assert {change.layer: bool(change.skipped) for change in half.changes} == {
        "graph": False,
        "w": False,
        "v": True,
    }


@pytest.mark.parametrize("compute", ["float32", "float16"])
def test_a_weight_that_is_an_output_stays(build, normal, compute):
    text = "g (float[N,8] x) => (float[N,8] y, float[8,8] w) { y = MatMul(x, w) }"
    half = FloatWeights(compute=compute)(compress.load(build(text, w=normal(8, 8))))
    assert half.changes[-1].skipped
    assert half.run({"x": normal(1, 8)})[1].dtype == np.float32


@pytest.mark.parametrize(("format", "times", "error"), [("bfloat16", 2, 3e-3), ("float8e4m3", 4, 0.04)])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e6])
def test_other_floats_hold_weights_of_any_size(load, normal, format, times, error, scale):
    model, x = load(scale=scale), normal(3, 8)
    small = FloatWeights(format=format)(model)
    assert small.weight_bytes <= model.weight_bytes / times + 8
    expected = model.run({"x": x})[0]
    assert np.linalg.norm(small.run({"x": x})[0] - expected) < error * np.linalg.norm(expected)
    for change in small.changes:
        assert 0 < change.error < error
