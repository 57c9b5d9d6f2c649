"""Walks from value to value."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from compress.graph.layers import Layer, layers
from compress.graph.walks import (
    after_activation,
    before_activation,
    bias_place,
    codes_behind,
    depths,
    epilogue,
    only_reader,
    product_behind,
)


def _graph(body: str, inputs: str, outputs: str = "float[N,8] y", **constants: np.ndarray) -> ir.Graph:
    import onnx

    text = f'<ir_version: 10, opset_import: ["": 21]> main ({inputs}) => ({outputs}) {{ {body} }}'
    model = ir.from_proto(onnx.parser.parse_model(text))
    for name, content in constants.items():
        value = ir.Value(
            name=name,
            const_value=ir.tensor(content, name=name),
            type=ir.TensorType(ir.DataType.from_numpy(content.dtype)),
        )
        for node in model.graph:
            for index, given in enumerate(node.inputs):
                if given is not None and given.name == name:
                    node.replace_input_with(index, value)
        model.graph.register_initializer(value)
    return model.graph


def _first(graph: ir.Graph) -> Layer:
    return next(layers(graph))


def _constant(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


MATRIX = {"body": "h = MatMul(x, w)  y = Add(h, b)", "inputs": "float[N,4] x, float w, float b"}
IMAGE = {"body": "h = Conv(x, w)  y = Add(b, h)", "inputs": "float[N,3,5,5] x, float w, float b"}


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1, 1, 8)])
def test_a_bias_behind_a_matrix_product_has_any_shape_that_broadcasts(shape: tuple[int, ...]) -> None:
    graph = _graph(**MATRIX, w=_constant(4, 8), b=_constant(*shape))
    layer = _first(graph)
    assert bias_place(layer.node.outputs[0], layer) == (graph[1], 1)


@pytest.mark.parametrize("shape", [(1,), (8, 1), (4, 8)])
def test_other_constants_are_no_bias(shape: tuple[int, ...]) -> None:
    layer = _first(_graph(**MATRIX, w=_constant(4, 8), b=_constant(*shape)))
    assert bias_place(layer.node.outputs[0], layer) is None


@pytest.mark.parametrize(("shape", "found"), [((8, 1, 1), True), ((1, 8, 1, 1), True), ((8,), False)])
def test_a_bias_behind_a_convolution_lies_along_the_channels(shape: tuple[int, ...], found: bool) -> None:
    graph = _graph(**IMAGE, w=_constant(8, 3, 1, 1), b=_constant(*shape))
    layer = _first(graph)
    assert bias_place(layer.node.outputs[0], layer) == ((graph[1], 0) if found else None)


def test_one_number_for_all_channels_is_no_bias() -> None:
    graph = _graph("y = Gemm(x, w, b)", "float[N,4] x, float w, float b", w=_constant(4, 8), b=_constant())
    assert bias_place(graph[0].outputs[0], _first(graph)) is None


def test_a_missing_bias_has_a_place_only_if_asked_for() -> None:
    graph = _graph("y = Conv(x, w)", "float[N,3,5,5] x, float w", w=_constant(8, 3, 1, 1))
    layer = _first(graph)
    assert bias_place(graph[0].outputs[0], layer) is None
    assert bias_place(graph[0].outputs[0], layer, free=True) == (graph[0], 2)


def test_a_product_that_others_read_as_well_has_no_bias_behind_it() -> None:
    graph = _graph(**MATRIX, outputs="float[N,8] y, float[N,8] h", w=_constant(4, 8), b=_constant(8))
    layer = _first(graph)
    assert bias_place(layer.node.outputs[0], layer) is None
    assert only_reader(layer.node.outputs[0]) is None


def test_activations_that_cut_are_passed_both_ways() -> None:
    graph = _graph("h = MatMul(x, w)  y = Relu(h)", "float[N,4] x, float w", w=_constant(4, 8))
    product, relu = graph
    assert after_activation(product.outputs[0]) is relu.outputs[0]
    assert after_activation(relu.outputs[0]) is relu.outputs[0]
    assert before_activation(relu.outputs[0]) is product


def test_the_product_behind_a_value_and_what_follows_it() -> None:
    body = "h = Conv(x, w)  i = Mul(h, s)  j = Add(i, b)  y = Clip(j)  z = Sigmoid(y)"
    graph = _graph(
        body,
        "float[N,3,5,5] x, float w, float b, float s",
        outputs="float[N,8,5,5] z",
        w=_constant(8, 3, 1, 1),
        b=_constant(8, 1, 1),
        s=_constant(1),
    )
    convolution, scaled, biased, clipped, _ = graph
    assert product_behind(clipped.outputs[0]) is convolution
    assert epilogue(scaled.outputs[0]) == [each.outputs[0] for each in (scaled, biased, clipped)]
    assert epilogue(convolution.outputs[0]) == [convolution.outputs[0]]


def test_codes_are_found_behind_the_arithmetic_that_decodes_them() -> None:
    codes = np.ones((4, 8), np.int8)
    body = "f = Cast<to=1>(q)  m = Sub(f, b)  n = Mul(m, s)  w = Transpose(n)  y = MatMul(x, w)"
    inputs = "float[N,4] x, int8 q, float b, float s"
    graph = _graph(body, inputs, q=codes, b=_constant(1), s=_constant(1))
    found = codes_behind(graph[4].inputs[1])
    assert found is not None
    assert found.name == "q"
    assert codes_behind(graph[4].inputs[0]) is None
    assert codes_behind(graph[2].inputs[1]) is None


def test_depths_count_along_the_longest_way() -> None:
    body = "h = Relu(x)  i = Relu(h)  j = Neg(x)  y = Add(i, j)"
    graph = _graph(body, "float[N,8] x")
    found = depths(graph, lambda node, _: node.op_type != "Neg")
    assert [(node.op_type, depth) for node, depth in found.items()] == [("Relu", 0), ("Relu", 1), ("Add", 2)]
