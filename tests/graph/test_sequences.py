"""Shapes through sequences, and through what loops append to them; ONNX Runtime has the last word."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from compress.graph.shapes import infer, lay_out

HEAD = '<ir_version: 8, opset_import: ["": 17]>\n'
CASES = {
    "joined": "g (float[4, 6] x) => (float[a, b] y) { s = SplitToSequence <axis = 1> (x, two)"
    " y = ConcatFromSequence <axis = 0> (s) }",
    "stacked": "g (float[4, 6] x) => (float[a, b, c] y) { s = SplitToSequence <axis = 0, keepdims = 0> (x)"
    " y = ConcatFromSequence <axis = -1, new_axis = 1> (s) }",
    "rest": "g (float[4, 6] x) => (float[a, b] y) { s = SplitToSequence <axis = 1> (x, four)"
    " y = SequenceAt(s, minus) }",
    "sizes": "g (float[4, 6] x) => (float[a, b] y) { s = SplitToSequence <axis = 1> (x, uneven)"
    " y = SequenceAt(s, one) }",
    "edited": "g (float[4, 6] x) => (float[a, b] y) { r = Relu(x) t = Transpose(x)"
    " s = SequenceConstruct(x, t) q = SequenceInsert(s, r, zero)"
    " p = SequenceErase(q, one) i = Identity(p) y = SequenceAt(i, one) }",
    "length": "g (float[4, 6] x) => (float[a] y) { s = SequenceConstruct(x, x, x) n = SequenceLength(s)"
    " m = Reshape(n, list) y = ConstantOfShape(m) }",
    "optional": "g (float[4, 6] x) => (float[a, b] y) { o = Optional(x) z = OptionalGetElement(o)"
    " y = Transpose(z) }",
    "mapped": "g (float[4, 6] x) => (float[a] y) { t = Transpose(x) s = SequenceConstruct(x, t)"
    " q = SequenceMap <body = b (float[c, d] e) => (float[f] h)"
    " { h = ReduceSum <keepdims = 0> (e, none) }> (s) y = SequenceAt(q, one) }",
    "appended": "g (float[4, 6] x) => (float[a, b] y) { s = SequenceEmpty()"
    " q = Loop <body = b (int64 i, bool c, seq(float[d, e]) f) =>"
    " (bool g, seq(float[h, j]) k) { g = Identity(c) k = SequenceInsert(f, x) }>"
    " (three, yes, s) y = ConcatFromSequence <axis = 0> (q) }",
    "grown": "g (float[4, 6] x) => (float[a, b] y) { y = Loop <body = b (int64 i, bool c, float[d, e] f) =>"
    " (bool g, float[h, j] k) { g = Identity(c) k = Concat <axis = 0> (f, x) }> (three, yes, x) }",
    "chosen": "g (float[4, 6] x) => (float[a, b] y) { s = If <then_branch = t () => (seq(float[c, d]) e)"
    " { e = SequenceConstruct(x, x) }, else_branch = u () => (seq(float[k, l]) f)"
    " { f = SequenceConstruct(x) }> (yes) y = ConcatFromSequence <axis = 1> (s) }",
}
CONSTANTS = {
    "two": np.array(2),
    "four": np.array(4),
    "uneven": np.array([1, 5]),
    "minus": np.array(-1),
    "zero": np.array(0),
    "one": np.array(1),
    "three": np.array(3),
    "none": np.array([0]),
    "list": np.array([1]),
    "yes": np.array(True),
}


def build(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in CONSTANTS.items())
    return model


@pytest.mark.parametrize("case", CASES)
def test_shapes_are_those_of_the_runtime(case: str) -> None:
    proto = build(CASES[case])
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (real,) = session.run(None, {"x": np.ones((4, 6), np.float32)})
    assert infer(ir.from_proto(proto))["y"] == real.shape


def test_the_body_of_a_growing_loop_is_known_in_the_middle() -> None:
    found = lay_out(ir.from_proto(build(CASES["grown"].replace("three", "four")))).known
    assert (found["f"].shape, found["k"].shape, found["y"].shape) == ((8, 6), (12, 6), (20, 6))


def test_bodies_of_a_sequence_map_are_known_for_the_largest_element() -> None:
    text = CASES["mapped"].replace("SequenceConstruct(x, t)", "SplitToSequence(x, three)")
    assert lay_out(ir.from_proto(build(text))).known["e"].shape == (3, 6)
