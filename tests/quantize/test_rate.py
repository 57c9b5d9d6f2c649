"""Weights that know they will be coded: every kind of layer, the rate kept, closer than plain integers."""

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import compress
from compress.diagnose.metrics import measure
from compress.errors import PassError
from compress.numerics.rate import entropy
from compress.passes import CodedWeights, Int8Weights


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def integers(model):
    """Return the codes of every weight, those of blocked kernels unpacked."""
    found = {}
    for name, value in model.graph.initializers.items():
        if not name.endswith(".quantized"):
            continue
        codes = value.const_value.numpy()
        bits = {use.node.attributes["bits"].value for use in value.uses() if "bits" in use.node.attributes}
        found[name] = np.stack([codes & 15, codes >> 4], -1) if bits == {4} else codes
    return found


def bits_of(model):
    return sum(entropy(torch.from_numpy(a.astype(np.int16))) * a.size for a in integers(model).values())


@pytest.mark.parametrize(("operators", "rate"), [("onnxruntime", 5), ("expanded", 2), ("standard", 4)])
def test_every_layer_of_every_model(small_model, operators, rate):
    small = CodedWeights(rate=rate, operators=operators)(small_model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    feeds = next(small_model.batches())
    assert distance(small.run(feeds)[0], small_model.run(feeds)[0]) < 0.9 * 2.0 ** (1.5 - rate)
    done = [change for change in small.changes if change.action]
    weights = sum(change.bytes_before for change in done) / 4
    lengths = [float(change.action.split(", ")[-1].split()[0]) for change in done]
    stored = [change.bytes_before / 4 for change in done]
    assert np.dot(lengths, stored) <= 1.02 * rate * weights
    if operators != "onnxruntime":  # whose kernels fill up the last block of a row
        assert bits_of(small) <= rate * weights


def test_closer_than_8_bits_at_a_smaller_size(digits):
    plain = Int8Weights(operators="expanded")(digits)
    coded = CodedWeights(rate=bits_of(plain) * 0.85 / sum(a.size for a in integers(plain).values()),
                         operators="expanded")(digits)  # fmt: skip
    feeds = next(digits.evaluation.batches(digits.graph.inputs))[0]
    expected = digits.run(feeds)[0]
    assert distance(coded.run(feeds)[0], expected) < distance(plain.run(feeds)[0], expected)


def test_digits_keep_their_accuracy_at_three_bits(digits):
    def accuracy(model):
        return measure("accuracy", model.run, model.run, model.evaluation.batches(model.graph.inputs))

    assert accuracy(CodedWeights(rate=3)(digits)) >= accuracy(digits) - 0.01


def test_without_calibration_data_every_layer_keeps_the_same_relative_error(build, normal):
    text = "g (float[N,64] x) => (float[N,48] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
    model = compress.load(build(text, w=normal(64, 96), v=100 * normal(96, 48)))
    small = CodedWeights(rate=4)(model)
    first, second = (change.error for change in small.changes)
    assert first == pytest.approx(second, rel=0.3)


def test_codes_that_fit_are_stored_in_four_bits(build, normal):
    model = compress.load(
        build("g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", w=normal(64, 64))
    )
    fine, coarse = (CodedWeights(rate=rate)(model) for rate in (6, 2))
    assert [model.graph[-1].attributes["bits"].value for model in (fine, coarse)] == [8, 4]
    assert coarse.weight_bytes < 0.6 * fine.weight_bytes


@pytest.mark.parametrize("group", [1, 2, 8])
def test_convolutions_in_groups(build, normal, group):
    text = f"g (float[N,8,9,9] x) => (float[N,8,7,7] y) {{ y = Conv<group={group}>(x, w) }}"
    model = compress.load(build(text, w=normal(8, 8 // group, 3, 3)), calibration=[{"x": normal(4, 8, 9, 9)}])
    small = CodedWeights(rate=7, operators="expanded")(model)
    x = normal(2, 8, 9, 9)
    assert distance(small.run({"x": x})[0], model.run({"x": x})[0]) < 0.1


def test_a_shared_weight_is_coded_once(build, normal):
    text = (
        "g (float[N,64] x) => (float[N,48] y) { h = MatMul(x, w) z = Neg(x) k = MatMul(z, w) y = Sub(h, k) }"
    )
    model = compress.load(build(text, w=normal(64, 48)), calibration=[{"x": normal(100, 64)}])
    small = CodedWeights(rate=4)(model)
    assert len(integers(small)) == 1
    x = normal(3, 64)
    assert distance(small.run({"x": x})[0], model.run({"x": x})[0]) < 0.15


def test_refusals_and_weights_left(build, normal):
    weight = normal(32, 32)
    weight[3, 4] = math.inf
    text = "g (float[N,32] x) => (float[N,32] y) { [bad] y = MatMul(x, w) }"
    left = CodedWeights()(compress.load(build(text, w=weight))).changes[0]
    assert (left.layer, left.action) == ("bad", "") and "infinite" in left.skipped
    tiny = compress.load(build("g (float[N,4] x) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(4, 4)))
    with pytest.raises(PassError, match="coded-weights: a rate of 1 bits cannot be reached"):
        CodedWeights(rate=1)(tiny)


def test_graphs_without_gradients_are_coded_too(build, normal):
    text = """g (float[N,48] x, bool c) => (float[N,36] y) {
        h = MatMul(x, w)
        y = If(c) <then_branch = t () => (float[N,36] a) { a = Relu(h) }, else_branch = e () => (float[N,36] b) { b = Neg(h) }>
    }"""  # noqa: E501
    model = compress.load(
        build(text, w=normal(48, 36)), calibration=[{"x": normal(100, 48), "c": np.array(True)}]
    )
    small = CodedWeights(rate=4)(model)
    feeds = {"x": normal(3, 48), "c": np.array(False)}
    assert distance(small.run(feeds)[0], model.run(feeds)[0]) < 0.2
