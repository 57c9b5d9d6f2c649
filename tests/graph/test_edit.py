"""Edits keep what they are not asked to change, in graphs, in bodies and in functions."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compress.graph import edit
from compress.graph.session import session

CHAIN = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[N, 2] x) => (float[N, 2] y)
<float[2] w = {1.0, 2.0}>
{
    a = Mul(x, w)
    b = Add(a, w)
    y = Relu(b)
}
"""

BRANCHES = """
<ir_version: 10, opset_import: ["" : 21]>
g (bool c, float[2] x) => (float[2] y)
<float[2] w = {1.0, 2.0}>
{
    outer = Add(x, w)
    y = If (c) <
        then_branch = yes () => (float[2] t) <float[2] inner = {3.0, 4.0}> {
            p = Mul(outer, inner)
            t = Neg(p)
        },
        else_branch = no () => (float[2] e) { e = Mul(outer, w) }
    >
}
"""


def parsed(text: str) -> ir.Model:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    for node in model.graph.all_nodes():
        node.name = f"{node.outputs[0].name}_node"
    return model


def node_of(model: ir.Model, output: str) -> ir.Node:
    return next(node for node in model.graph.all_nodes() if node.outputs[0].name == output)


def run(model: ir.Model, **feeds: object) -> np.ndarray:
    arrays = {name: np.asarray(value, bool if name == "c" else np.float32) for name, value in feeds.items()}
    return np.asarray(session(model).run(None, arrays)[0])


def described(model: ir.Model) -> dict[str, str]:
    """Return type and shape of every value by name."""
    values = [value for node in model.graph.all_nodes() for value in (*node.inputs, *node.outputs) if value]
    return {value.name or "": f"{value.type} {value.shape}" for value in values}


def test_initializers_share_a_name_only_with_equal_content() -> None:
    graph = parsed(CHAIN).graph
    same = edit.add_initializer(graph, "w", np.array([1, 2], np.float32))
    other = edit.add_initializer(graph, "w", np.array([1, 3], np.float32))
    assert same is graph.initializers["w"]
    assert other.name == "w_1"
    assert (other.dtype, other.shape) == (ir.DataType.FLOAT, ir.Shape([2]))


def test_new_content_of_an_initializer_reaches_all_its_readers() -> None:
    model = parsed(CHAIN)
    edit.set_initializer(model.graph.initializers["w"], np.array([[3, 3]], np.float32))
    assert model.graph.initializers["w"].shape == ir.Shape([1, 2])
    assert run(model, x=[[1, 2]]).tolist() == [[6, 9]]


def test_a_node_replaced_keeps_its_outputs_names_types_and_shapes() -> None:
    model = parsed(CHAIN)
    before = described(model)
    old = node_of(model, "y")
    twice = ir.node("Relu", [old.inputs[0]], name="twice")
    twice.outputs[0].name = "once"
    edit.replace_node(old, twice, ir.node("Relu", twice.outputs, name=old.name))
    after = described(model)
    assert {name: after[name] for name in before} == before
    assert model.graph.outputs[0].name == "y"
    assert [node.name for node in model.graph] == ["a_node", "b_node", "twice", "y_node"]
    assert run(model, x=[[1, -9]]).tolist() == [[2, 0]]


def test_what_only_a_replaced_node_read_goes_with_it() -> None:
    model = parsed(CHAIN)
    edit.replace_node(node_of(model, "b"), ir.node("Identity", [model.graph.inputs[0]], name="short"))
    assert [node.op_type for node in model.graph] == ["Identity", "Relu"]
    assert not model.graph.initializers


def test_a_value_replaced_as_a_graph_output_hands_its_name_on() -> None:
    model = parsed(CHAIN)
    old = node_of(model, "y").outputs[0]
    new = ir.node("Neg", [node_of(model, "b").outputs[0]], name="negated")
    new.outputs[0].name = "z"
    edit.insert_after(node_of(model, "b").outputs[0], new)
    edit.replace_value(old, new.outputs[0])
    assert [(value.name, str(value.shape)) for value in model.graph.outputs] == [("y", "[N,2]")]
    assert [node.op_type for node in model.graph] == ["Mul", "Add", "Neg"]
    assert run(model, x=[[1, 2]]).tolist() == [[-2, -6]]


def test_an_input_replaced_frees_what_it_read_before() -> None:
    model = parsed(CHAIN)
    graph = model.graph
    other = edit.add_initializer(graph, "v", np.array([5, 5], np.float32))
    edit.set_input(node_of(model, "a"), 1, other)
    assert set(graph.initializers) == {"w", "v"}  # the addition reads it still
    edit.set_input(node_of(model, "b"), 1, other)
    assert set(graph.initializers) == {"v"}


def test_an_input_that_a_node_does_not_have_yet_is_appended() -> None:
    model = parsed(CHAIN)
    clip = ir.node("Clip", [node_of(model, "b").outputs[0]], name="clip")
    edit.replace_node(node_of(model, "y"), clip)
    edit.set_input(clip, 2, edit.add_initializer(model.graph, "most", np.array(3, np.float32)))
    assert [value and value.name for value in clip.inputs] == ["b", None, "most"]
    assert run(model, x=[[1, 2]]).tolist() == [[2, 3]]


def test_a_node_is_bypassed() -> None:
    model = parsed(CHAIN)
    edit.bypass(node_of(model, "b"))
    assert [node.op_type for node in model.graph] == ["Mul", "Relu"]
    assert run(model, x=[[1, 2]]).tolist() == [[1, 4]]


def test_a_graph_output_that_is_bypassed_keeps_its_name() -> None:
    model = parsed(CHAIN)
    edit.bypass(node_of(model, "y"))
    assert [(node.op_type, node.name) for node in model.graph][-1] == ("Identity", "y_node")
    assert model.graph.outputs[0].name == "y"
    assert run(model, x=[[-3, 2]]).tolist() == [[-2, 6]]


def test_a_node_that_something_reads_is_not_removed() -> None:
    model = parsed(CHAIN)
    with pytest.raises(ValueError, match="still being used"):
        edit.remove(node_of(model, "a"))
    with pytest.raises(ValueError, match="output of the graph"):
        edit.remove(node_of(model, "y"))


def test_edits_of_a_body_stay_in_it() -> None:
    model = parsed(BRANCHES)
    node = node_of(model, "p")
    body = edit.graph_of(node)
    half = edit.add_initializer(body, "half", np.array([0.5, 0.5], np.float32))
    scaled = ir.node("Mul", [node.inputs[1], half], name="scaled_node")
    scaled.outputs[0].name = "scaled"
    edit.insert_before(node, scaled)
    edit.set_input(node, 1, scaled.outputs[0])
    assert [each.name for each in body] == ["scaled_node", "p_node", "t_node"]
    assert set(body.initializers) == {"inner", "half"}
    assert set(model.graph.initializers) == {"w"}
    assert run(model, c=True, x=[1, 2]).tolist() == [-3, -8]


def test_a_value_read_in_bodies_is_rounded_where_it_is_made() -> None:
    model = parsed(BRANCHES)
    value = node_of(model, "outer").outputs[0]
    readers = list(value.uses())
    floor = ir.node("Floor", [value], name="floor")
    floor.outputs[0].name = "floored"
    edit.insert_after(value, floor)
    for reader, index in readers:
        edit.set_input(reader, index, floor.outputs[0])
    assert [node.name for node in model.graph] == ["outer_node", "floor", "y_node"]
    assert run(model, c=False, x=[1.5, 1.5]).tolist() == [2, 6]


def test_a_weight_read_in_a_body_is_replaced_there_too() -> None:
    model = parsed(BRANCHES)
    weight = model.graph.initializers["w"]
    stored = edit.add_initializer(model.graph, "w.half", np.array([1, 2], np.float16))
    cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name="cast")
    cast.outputs[0].name = "w.float"
    edit.insert_first(model.graph, cast)
    edit.replace_value(weight, cast.outputs[0])
    assert set(model.graph.initializers) == {"w.half"}
    assert str(cast.outputs[0].shape) == "[2]"
    assert run(model, c=False, x=[1, 2]).tolist() == [2, 8]


def test_what_only_a_body_read_goes_with_its_node() -> None:
    model = parsed(BRANCHES)
    node = node_of(model, "y")
    edit.replace_node(node, ir.node("Neg", [model.graph.inputs[1]], name=node.name))
    assert [each.op_type for each in model.graph] == ["Neg"]
    assert not model.graph.initializers


def test_domains_of_bodies_are_declared_in_the_graph_around_them() -> None:
    model = parsed(BRANCHES)
    node = node_of(model, "t")
    gelu = ir.node("Gelu", [node.inputs[0]], domain="com.microsoft", name="gelu")
    edit.replace_node(node, gelu)
    assert "com.microsoft" not in model.graph.opset_imports
    assert run(model, c=True, x=[1, 2]).shape == (2,)  # a session declares what it needs
    edit.declare_domains(model)
    assert model.graph.opset_imports["com.microsoft"] == 1


def test_domains_are_declared_in_graphs_and_functions() -> None:
    def gelu() -> ir.Node:
        return ir.node("Gelu", [ir.val("x")], domain="com.microsoft")

    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    body = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    function = ir.Function("local", "twice", graph=body, attributes=[])
    edit.insert_first(graph, gelu())
    edit.insert_first(function.graph, gelu())
    assert graph.opset_imports == function.opset_imports == {"": 21, "com.microsoft": 1}
    inner = ir.Graph([], [], nodes=[gelu()])
    body.append(ir.node("If", [ir.val("c")], {"then_branch": inner, "else_branch": inner}))
    del body.opset_imports["com.microsoft"]
    edit.remove(body[0])
    edit.declare_domains(ir.Model(graph, ir_version=10, functions=[function]))
    assert function.opset_imports == {"": 21, "com.microsoft": 1}
