"""Shapes of every value, however the graph hides them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from compress.errors import ModelError
from compress.graph import shapes


def build(text: str) -> ir.Model:
    return ir.from_onnx_text('<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>\n' + text)


def relu(**inputs: list[int | str]) -> ir.Model:
    """A Relu on the first of some inputs."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", [infos[0].name], ["y"])], "g", infos, [out])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


def test_symbols_are_bound_once_and_equally() -> None:
    model = relu(x=["batch", "seq", 8], p=["seq"], q=["a", "b"])
    found = shapes.infer(model, {"q": [5, 6]})
    assert found["x"] == found["y"] == (1, 128, 8)
    assert (found["p"], found["q"]) == ((128,), (5, 6))


def test_sums_of_symbols_follow_them() -> None:
    model = relu(x=["n", "seq"], k=["n", "past"], m=["n", "seq + past"], o=["n", "past + 1"])
    found = shapes.infer(model, {"x": [2, 3], "k": [2, 4]})
    assert (found["m"], found["o"]) == ((2, 7), (2, 5))


def test_sizes_given_by_an_input_count_as_zeros() -> None:
    model = build(
        "g (float[n, 32] x, int64[2] w) => (float[a, b] y)"
        " { h = com.microsoft.QuickGelu(x) \n size = Add(w, w) \n y = Reshape(h, size) }"
    )
    found = shapes.describe(model, {"x": [0, 32]})
    assert found["h"] == ((0, 32), ir.DataType.FLOAT)
    assert found["y"] == ((0, 32), ir.DataType.FLOAT)  # a size of 0 copies the input's


def test_sizes_computed_in_the_graph_are_followed() -> None:
    model = build(
        """g (float[batch, seq, 12] x) => (float[a, b, c, d] y)
        <int64[1] zero = {0}, int64[1] one = {1}, int64[2] tail = {3, 4}> {
            shape = Shape(x)
            batch = Gather(shape, zero)
            seq = Gather(shape, one)
            sizes = Concat <axis = 0> (batch, seq, tail)
            y = Reshape(x, sizes)
        }"""
    )
    assert shapes.describe(model, {"x": [2, 5, 12]})["y"] == ((2, 5, 3, 4), ir.DataType.FLOAT)


def test_packed_products_are_known() -> None:
    model = build(
        "g (float[n, 64] x, uint8[16, 2, 16] w, float[32] s) => (float[n, m] y)"
        " { y = com.microsoft.MatMulNBits <K = 64, N = 16, bits = 4, block_size = 32> (x, w, s) }"
    )
    assert shapes.infer(model)["y"] == (1, 16)


def test_large_weights_are_neither_read_nor_serialized() -> None:
    def unreadable() -> ir.TensorProtocol:
        raise AssertionError("the weight was read")

    weight = ir.LazyTensor(unreadable, dtype=ir.DataType.FLOAT, shape=ir.Shape([30000, 30000]), name="w")
    model = build("g (float[n, 30000] x) => (float[n, m] y) <float[30000, 30000] w> { y = MatMul(x, w) }")
    value = next(node.inputs[1] for node in model.graph)
    assert value is not None
    value.const_value = weight
    model.graph.register_initializer(value)
    assert shapes.infer(model)["y"] == (1, 30000)


def test_stale_shapes_in_the_file_do_not_count() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    assert shapes.infer(model, {"x": [7, 4]})["y"] == (7, 4)


def test_argument_is_left_alone() -> None:
    model = build("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }")
    before = ir.to_proto(model).SerializeToString()
    shapes.infer(model)
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": [1, 4]}, "no input 'z'"),
        ({"x": [1, 5]}, "shape 1x5"),
        ({"x": [1, 4, 1]}, "shape 1x4x1"),
        ({"x": [-1, 4]}, "negative"),
    ],
)
def test_wrong_shapes_are_named(given: dict[str, list[int]], message: str) -> None:
    model = build("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }")
    with pytest.raises(ModelError, match=message):
        shapes.infer(model, given)


def test_sizes_called_by_a_question_mark_are_not_equal() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [-1, 3, "?", "?"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [-1, 3, "?", "?"])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    assert shapes.infer(model, {"x": [2, 3, 48, 192]})["y"] == (2, 3, 48, 192)
    assert shapes.infer(model)["y"] == (1, 3, 128, 128)
    with pytest.raises(ModelError, match="no open dimension"):
        shapes.infer(model, {"?": 4})


def test_a_vector_may_be_given_by_its_size() -> None:
    model = build("g (float[n] x, float[m] n) => (float[n] y) { y = Relu(x) }")
    assert shapes.infer(model, {"x": 5}) == {"x": (5,), "y": (5,), "n": (1,)}
    assert shapes.infer(model, {"n": 5}) == {"x": (5,), "y": (5,), "n": (1,)}, "the dimension comes first"


def test_an_unknown_operator_is_one_clear_message() -> None:
    model = build("g (float[n, 4] x) => (float[n, 4] y) { a = com.microsoft.NoSuchThing(x) \n y = Relu(a) }")
    with pytest.raises(ModelError, match=r"'a' is not known: .*NoSuchThing.* add a rule"):
        shapes.infer(model)


def test_packed_weights_keep_their_type() -> None:
    model = build("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }")
    tensor = ir.tensor(np.zeros((3, 3), np.int8), dtype=ir.DataType.INT8, name="w")
    model.graph.register_initializer(
        ir.Value(name="w", const_value=tensor, type=ir.TensorType(ir.DataType.INT8))
    )
    assert shapes.describe(model)["w"] == ((3, 3), ir.DataType.INT8)


def test_a_model_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    model = build("g (float[n, 4] x) => (int64[a, b] y) { h = com.microsoft.QuickGelu(x) \n y = NonZero(h) }")
    assert shapes.infer(model)["y"] == (2, 4)


def test_a_size_that_data_decides_is_one_clear_message() -> None:
    model = build(
        "g (float[n, 4] x) => (float[a, b] y)"
        " { k = Cast <to = 7> (x) \n one = ReduceMax <keepdims = 0> (k) \n y = ConstantOfShape(s)"
        " \n shape = Shape(x) \n s = Mul(shape, one) }"
    )
    model.graph.sort()
    for node in model.graph:
        node.name = node.outputs[0].name
    with pytest.raises(ModelError, match=r"'y' is not known: node 'y' \(ConstantOfShape\) gives a size"):
        shapes.infer(model)


def test_shapes_that_do_not_fit_name_the_node() -> None:
    model = build("g (float[n, 4] x, float[5] z) => (float[n, 4] y) { y = Add(x, z) }")
    with pytest.raises(ModelError, match="Incompatible dimensions"):
        shapes.infer(model)


def test_stale_inner_shapes_in_the_file_do_not_count() -> None:
    model = build(
        "g (float[n, 4] x, bool c) => (float[m, 4] y) <float[9, 9] a> { a = Relu(x) \n y = Relu(a) }"
    )
    assert shapes.infer(model, {"x": [7, 4]})["a"] == (7, 4)


def test_values_that_are_no_tensors_are_left_out() -> None:
    model = build(
        "g (float[4, 3] x) => (float[a, 3] y) <int64 zero = {0}>"
        " { parts = SplitToSequence <axis = 0> (x) \n y = SequenceAt(parts, zero) }"
    )
    found = shapes.infer(model)
    assert "parts" not in found
    assert found["y"] == (1, 3)


def test_bodies_may_use_the_same_names() -> None:
    model = build(
        """g (float[2, 8] x, bool c) => (float[a, b] y, float[d, e] z) {
            y = If <then_branch = t () => (float[k, l] f) { h = Transpose(x)  f = Relu(h) },
                    else_branch = u () => (float[m, n] v) { h = Transpose(x)  v = Relu(h) }> (c)
            z = If <then_branch = o () => (float[p, q] f) { h = MatMul(x, y)  f = Relu(h) },
                    else_branch = r () => (float[s, w] i) { h = MatMul(x, y)  i = Relu(h) }> (c)
        }"""
    )
    found = shapes.infer(model)
    assert (found["y"], found["z"]) == ((8, 2), (2, 2))


def test_inputs_beyond_any_memory_are_refused(build: Any) -> None:
    model = ir.from_proto(build("g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }"))
    with pytest.raises(ModelError, match=r"input 'x': 1000000000000x8 is more than any memory holds"):
        shapes.describe(model, {"x": (10**12, 8)})
