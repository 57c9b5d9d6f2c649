"""The census of weights: what counts, what it is called, and what stayed as it was."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

import compress
from compress.graph.weights import census, unchanged
from compress.passes import Int8Weights

LINEAR = "g (float[N,8] x) => (float[N,6] y) { [fc] h = MatMul(x, w) y = Add(h, b) }"


def model(build, text, **weights):
    return ir.from_proto(build(text, **weights))


def test_shapes_indices_and_single_numbers_are_no_weights(build, normal):
    text = """g (float[N,8] x) => (float[2,M] y) {
        a = MatMul(x, w) c = Mul(a, one) d = Gather(c, i) y = Reshape(d, shape)
    }"""
    numbers = {"one": np.float32([2]), "i": np.arange(2), "shape": np.array([2, -1])}
    (weight,) = census(model(build, text, w=normal(8, 6), **numbers))
    assert (weight.name, weight.nbytes, [node.op_type for node in weight.readers]) == ("w", 192, ["MatMul"])
    assert not weight.is_vector


def test_a_weight_is_known_by_all_that_arranges_it(build, normal):
    text = """g (float[N,8] x) => (float[N,6] y) {
        [turn] t = Transpose(w) [widen] f = Cast<to = 1>(t) [fc] y = MatMul(x, f)
    }"""
    (weight,) = census(model(build, text, w=normal(6, 8).astype(np.float16)))
    assert weight.names >= {"w", "turn", "t", "widen", "f", "fc"}
    assert [node.name for node in weight.readers] == ["fc"]


def test_codes_are_the_weight_and_not_what_decodes_them(build, normal):
    text = """g (float[N,8] x) => (float[N,6] y) {
        f = Cast<to = 1>(codes) m = Cast<to = 1>(middle) s = Sub(f, m) w = Mul(s, scale) y = MatMul(x, w)
    }"""
    codes = np.ones((8, 6), np.int8)
    (weight,) = census(model(build, text, codes=codes, middle=codes[:1], scale=normal(1, 6)))
    assert (weight.name, weight.is_codes) == ("codes", True)


@pytest.mark.parametrize("operators", ["onnxruntime", "expanded", "standard"])
def test_what_a_pass_stores_is_one_weight_again(build, normal, operators):
    made = compress.load(build(LINEAR, w=normal(8, 6) + 1, b=normal(6)))
    small = Int8Weights(operators=operators)(made)
    assert sorted(weight.is_codes for weight in census(small.ir)) == [False, True]
    assert [weight.name for weight in unchanged(census(made.ir), census(small.ir))] == ["b"]


def test_a_weight_turned_and_renamed_is_the_same(build, normal):
    w = normal(8, 6)
    before = census(model(build, LINEAR, w=w, b=normal(6)))
    text = "g (float[N,8] x) => (float[N,6] y) { t = Transpose(v) h = MatMul(x, t) y = Add(h, b) }"
    after = census(model(build, text, v=w.T, b=normal(6)))
    assert [weight.name for weight in unchanged(before, after)] == ["w"]


def test_infinite_values_are_found_in_every_type(build, normal):
    for kind in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
        content = normal(8, 6).astype(kind)
        proto = build(LINEAR.replace("float[", "float16["), b=np.ones(6, np.float16))
        found = ir.from_proto(proto)
        value = ir.val("w", const_value=ir.tensor(content, name="w"))
        found.graph[0].replace_input_with(1, value)
        found.graph.register_initializer(value)
        weight = next(each for each in census(found) if each.name == "w")
        assert weight.is_finite
        weight.tensor = ir.tensor(np.where(np.arange(6) == 1, np.inf, content).astype(kind))
        assert not weight.is_finite
