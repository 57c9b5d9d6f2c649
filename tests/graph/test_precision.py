"""Arithmetic in another float type keeps the interface, and leaves what does not take it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compress.graph.precision import HALVES, compute_in, computes_in
from compress.graph.session import session

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


def converted(proto, wanted=FLOAT16, instead_of=(FLOAT,), chosen=lambda node: True):
    model = ir.from_proto(proto)
    nodes = compute_in(model, wanted, instead_of, chosen)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert [(each.name, each.type) for each in (*after.graph.input, *after.graph.output)] == [
        (each.name, each.type) for each in (*proto.graph.input, *proto.graph.output)
    ]
    return model, [node.op_type for node in nodes]


def agrees(proto, model, tolerance=1e-2, **feeds):
    for one, other in zip(
        session(ir.from_proto(proto)).run(None, feeds), session(model).run(None, feeds), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


def test_a_network_and_back(build, normal):
    proto = build(
        "g (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w) n = LayerNormalization(h, g) y = Softmax(n) }",
        w=normal(8, 4),
        g=normal(4),
    )
    half, nodes = converted(proto)
    assert nodes == ["MatMul", "LayerNormalization", "Softmax"]
    assert {value.dtype for value in half.graph.initializers.values()} == {FLOAT16}
    assert half.graph.initializers.keys() == {"w", "g"}
    agrees(proto, half, x=normal(3, 8))
    whole = ir.to_proto(half)
    back, _ = converted(whole, FLOAT, HALVES)
    assert not computes_in(back, HALVES)
    assert not any(node.op_type == "Cast" for node in back.graph)
    agrees(proto, back, x=normal(3, 8))


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("s = ai.onnx.ml.Scaler<offset=[0.5],scale=[2.0]>(x) y = MatMul(s, w)", "Scaler"),
        (
            "q, s, z = DynamicQuantizeLinear(x) f = DequantizeLinear(q, s, z) y = MatMul(f, w)",
            "DynamicQuantizeLinear",
        ),
        ("b = Mul(x, least) c = Add(b, x) y = MatMul(c, w)", "Mul"),
    ],
)
def test_operators_that_cannot_stay_in_float32(build, normal, body, left):
    values = {"w": normal(8, 8), "least": np.float32(-1e30)}
    values = {name: value for name, value in values.items() if f"{name})" in body}
    proto = build(f"g (float[N,8] x) => (float[N,8] y) {{ {body} }}", **values)
    proto.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    half, nodes = converted(proto)
    assert "MatMul" in nodes and left not in nodes
    agrees(proto, half, tolerance=5e-2, x=np.abs(normal(3, 8)) * (left != "Mul"))


def test_trees_whose_attributes_have_the_type_stay(build):
    proto = build("g (double[N,2] x) => (double[N,1] y) { y = ai.onnx.ml.TreeEnsemble(x) }")
    proto.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 5))
    doubles = {"nodes_splits": [0.5], "leaf_weights": [5.0, 7.0]}
    tree = {"aggregate_function": 1, "n_targets": 1, "leaf_targetids": [0, 0], "tree_roots": [0]}
    leaves = {
        "nodes_truenodeids": [0],
        "nodes_falsenodeids": [1],
        "nodes_trueleafs": [1],
        "nodes_falseleafs": [1],
    }
    tensors = {name: onnx.numpy_helper.from_array(np.array(values)) for name, values in doubles.items()}
    modes = {"nodes_modes": onnx.numpy_helper.from_array(np.array([0], np.uint8)), "nodes_featureids": [0]}
    for name, value in {**tensors, **tree, **leaves, **modes}.items():
        proto.graph.node[0].attribute.append(onnx.helper.make_attribute(name, value))
    kept, nodes = converted(proto, FLOAT, (ir.DataType.DOUBLE,))
    assert not nodes
    agrees(proto, kept, x=np.array([[0.0, 1.0], [1.0, 0.0]]))


def test_what_an_if_gives_changes_over_too(build, normal):
    positive = "then_branch = t () => (float[3,8] a) { a = Neg(x) }"
    branches = f"{positive}, else_branch = e () => (float[3,8] b) {{ b = Abs(x) }}"
    text = f"g (float[3,8] x, bool c) => (float[3,4] y) {{ h = If<{branches}>(c) y = MatMul(h, w) }}"
    proto = build(text, w=normal(8, 4))
    half, nodes = converted(proto)
    assert "MatMul" in nodes
    agrees(proto, half, x=normal(3, 8), c=np.array(True))


def test_sequences_that_a_body_puts_out_stay_sequences(build, normal):
    """No value is described: the body's output has the type, and the nodes around it have none."""
    bodies = ("then_branch = t () => (seq(double[3,8]) a) {{ a = {} }}, "
              "else_branch = e () => (seq(double[3,8]) b) {{ b = {} }}")  # fmt: skip
    branches = bodies.format(*["SequenceConstruct(x)"] * 2)
    nodes = f"s = If<{branches}>(c) y = SequenceAt(s, i)"
    text = f"g (double[3,8] x, bool c) => (double[3,8] y) {{ {nodes} }}"
    proto = build(text, i=np.int64(0))
    whole, _ = converted(proto, FLOAT, (ir.DataType.DOUBLE,))
    agrees(proto, whole, x=normal(3, 8).astype(np.float64), c=np.array(True))


def test_bits_that_are_read_as_another_type_stay(build):
    proto = build("g (double[N,2] x) => (int64[N,2] y) { h = Neg(x) y = BitCast<to = 7>(h) }", opset=26)
    kept, nodes = converted(proto, FLOAT, (ir.DataType.DOUBLE,))
    assert nodes == ["Neg"]
    agrees(proto, kept, x=np.array([[0.5, 1.0]]))


def test_values_beyond_its_range_are_cut_and_small_divisors_stay(build):
    text = """g (float[N] x, float[N] m) => (float[N] y, float[N] z) {
        a = Mul(m, least)  b = Add(a, x)  y = Exp(b)  c = Mul(x, x)  d = Add(c, tiny)  z = Div(x, d)
    }"""
    proto = build(text, least=np.float32(-3e38), tiny=np.float32(1e-12))
    half, _ = converted(proto)
    y, z = session(half).run(None, {"x": np.array([0, 1], np.float32), "m": np.array([1, 0], np.float32)})
    np.testing.assert_allclose(y, [0, np.e], rtol=1e-2)
    assert np.isfinite(z).all()


def test_bodies_keep_the_types_at_their_ends(build, normal):
    text = """g (float[N,8] x, bool c) => (float[N,8] y) {
        h = MatMul(x, w)
        y = If(c)<
            then_branch = t () => (float[N,8] p) { p = MatMul(h, w) },
            else_branch = e () => (float[N,8] q) { q = Relu(h) }
        >
    }"""
    proto = build(text, w=normal(8, 8))
    half, nodes = converted(proto)
    assert nodes == ["MatMul", "MatMul", "Relu"]
    for c in (True, False):
        agrees(proto, half, tolerance=5e-2, x=normal(3, 8), c=np.array(c))


def test_types_that_attributes_name_follow(build, normal):
    text = """g (int64[N] i, float[N] x) => (float[N] y) {
        f = Cast<to=1>(i)  s = Shape(i)  o = ConstantOfShape<value=float[1]{2.0}>(s)  a = Mul(f, o)
        y = Add(a, x)
    }"""
    proto = build(text)
    half, nodes = converted(proto)
    assert nodes == ["Cast", "ConstantOfShape", "Mul", "Add"]
    agrees(proto, half, i=np.arange(5), x=normal(5))


def test_a_node_left_out_computes_as_before(build, normal):
    proto = build(
        "g (float[N,8] x) => (float[N,8] y) { [a] h = MatMul(x, w) [b] y = MatMul(h, w) }", w=normal(8, 8)
    )
    half, nodes = converted(proto, chosen=lambda node: node.name == "a")
    assert nodes == ["MatMul"]
    assert {value.dtype for value in half.graph.initializers.values()} == {FLOAT, FLOAT16}
    agrees(proto, half, tolerance=5e-2, x=normal(3, 8))
