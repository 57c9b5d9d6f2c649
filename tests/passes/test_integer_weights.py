"""integer-weights and its short names: what they stand for, and what they refuse."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from pydantic import ValidationError

import compress
from compress.passes import Int4Weights, Int8Weights, IntegerWeights


@pytest.mark.parametrize("kind", [Int4Weights, Int8Weights])
def test_short_names_print_what_they_stand_for(kind):
    text = " ".join((kind.__doc__ or "").split())
    (line,) = [each for each in text.split("``") if each.startswith("integer-weights:")]
    assert line == repr(kind())
    assert str(kind(include=("a",))) == line.replace("}", ", include: ['a']}")


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (Int4Weights(), IntegerWeights()),
        (Int4Weights(group_size=64, symmetric=False), IntegerWeights(group_size=64, symmetric=False)),
        (Int8Weights(), IntegerWeights(bits=8)),
    ],
)
def test_short_names_do_what_they_stand_for(digits, short, long):
    assert repr(short) == repr(long)
    one, two = (ir.to_proto(each(digits).ir).SerializeToString(deterministic=True) for each in (short, long))
    assert one == two


def test_short_names_have_their_bits_and_no_others():
    with pytest.raises(ValidationError, match=r"int4-weights has 4 bits; write integer-weights: {bits: 8}"):
        Int4Weights(bits=8)
    assert Int8Weights(bits=8) == Int8Weights()


def test_bodies_hold_weights_of_8_bits_or_floats(build, normal):
    text = """g (float[N,32] x, bool c) => (float[N,32] y) {
        y = If(c)<then_branch = t () => (float[N,32] a) { a = MatMul(x, v) },
                  else_branch = e () => (float[N,32] b) { b = Neg(x) }>
    }"""
    proto = build(text)
    proto.graph.node[0].attribute[0].g.initializer.append(numpy_helper.from_array(normal(32, 32), "v"))
    model = compress.load(proto)
    feeds = {"x": normal(3, 32), "c": np.array(True)}
    for bits, smaller in ((8, True), (4, False)):
        small = IntegerWeights(bits=bits)(model)
        assert (small.weight_bytes < 0.4 * model.weight_bytes) == smaller
        np.testing.assert_allclose(small.run(feeds)[0], model.run(feeds)[0], atol=0.5)
