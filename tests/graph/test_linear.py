"""Layers as rows of inputs times a matrix, against what the runtime computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compress.graph.linear import (
    from_matrix,
    in_layout,
    input_rows,
    linear_layers,
    matrix,
    output_rows,
    recurrent_layers,
    source,
)
from compress.graph.session import session

Build = Callable[..., Any]

# ruff: noqa: E501  (a graph a line)
CASES = {
    "MatMul": ("g (float[2,3,6] x) => (float[2,3,4] y) { y = MatMul(x, w) }", (2, 3, 6), (6, 4)),
    "Gemm": ("g (float[5,6] x) => (float[5,4] y) { y = Gemm<transB=1>(x, w) }", (5, 6), (4, 6)),
    "Conv": (
        "g (float[2,3,9,8] x) => (float[2,4,a,b] y) { y = Conv<pads=[1,0,2,1], strides=[2,1], dilations=[1,2]>(x, w) }",
        (2, 3, 9, 8),
        (4, 3, 3, 2),
    ),
    "groups": ("g (float[2,6,9] x) => (float[2,4,a] y) { y = Conv<group=2>(x, w) }", (2, 6, 9), (4, 3, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_times_the_matrix_are_the_outputs(build: Build, normal: Any, case: str) -> None:
    text, sizes, weight = CASES[case]
    model = ir.from_proto(build(text, w=normal(*weight)))
    (layer,) = linear_layers(model.graph)
    x = normal(*sizes)
    rows, chosen = input_rows(layer, x, np.random.default_rng(0), rows=7)
    product = np.concatenate(list(rows @ matrix(layer, layer.array)), axis=-1)
    (outputs,) = session(model).run(None, {source(layer): x})
    assert len(set(chosen.tolist())) == len(chosen) == min(7, outputs.size // 4)
    np.testing.assert_allclose(output_rows(layer, outputs, chosen), product, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_matrix_goes_back_into_the_layout_of_its_weight(build: Build, normal: Any, case: str) -> None:
    text, _, weight = CASES[case]
    (layer,) = linear_layers(ir.from_proto(build(text, w=normal(*weight))).graph)
    np.testing.assert_array_equal(from_matrix(layer, matrix(layer, layer.array)), layer.array)


def test_one_entry_for_a_block_of_features_keeps_the_layout(build: Build, normal: Any) -> None:
    (layer,) = linear_layers(ir.from_proto(build(CASES["MatMul"][0], w=normal(6, 4))).graph)
    assert in_layout(layer, normal(1, 2, 4)).shape == (2, 4)


@pytest.mark.parametrize(
    "body",
    [
        "y = Gemm<alpha=0.5>(x, w)",
        "y = Gemm<transA=1>(x, w)",
        "a = MatMul(x, w) y = MatMul(a, w)",
    ],
)
def test_what_is_no_plain_product_of_its_own_weight_is_left_out(build: Build, normal: Any, body: str) -> None:
    graph = ir.from_proto(build(f"g (float[4,4] x) => (float[4,4] y) {{ {body} }}", w=normal(4, 4))).graph
    assert not list(linear_layers(graph))


def test_a_hidden_weight_reads_the_states_of_its_node(build: Build, normal: Any) -> None:
    text = "g (float[T,N,4] x) => (float[T,1,N,8] y) { y = GRU<hidden_size=8>(x, w, r) }"
    graph = ir.from_proto(build(text, w=normal(1, 24, 4), r=normal(1, 24, 8))).graph
    layers = list(recurrent_layers(graph))
    assert [source(layer) for layer in layers] == ["x", "y"]
    assert [matrix(layer, layer.array).shape for layer in layers] == [(1, 4, 24), (1, 8, 24)]
    states = normal(5, 1, 2, 8)
    rows, chosen = input_rows(layers[1], states, np.random.default_rng(0))
    np.testing.assert_array_equal(rows[0], states.reshape(10, 8)[chosen])
