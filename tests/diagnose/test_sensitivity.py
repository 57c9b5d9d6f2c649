"""Noise of codes and of rounded weights, each on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compress.diagnose.sensitivity import Codes, Switchboard, noise_of_each
from compress.graph.layers import layers
from compress.model import Model
from compress.numerics.affine import quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis
from compress.passes import Fold


def rounded(model: Model, bits: int = 8) -> dict[str, dict[str, np.ndarray]]:
    """Return the weights of all layers rounded to the nearest."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for layer in layers(model.graph):
        integers = IntegerFormat(bits, PerAxis(layer.out_axis), narrow=True)
        content = quantize(torch.from_numpy(layer.array.copy()), integers).dequantize().numpy()
        found.setdefault(layer.name, {})[layer.weight.name or ""] = content
    return found


def test_noise_of_rounding_a_layer_alone_grows_with_fewer_bits(digits: Model) -> None:
    model = Fold()(digits)
    batches = list(model.batches())[:1]
    fine, coarse = (Switchboard(model, {}, rounded(model, bits), batches) for bits in (8, 4))
    for name in rounded(model):
        assert 0 < fine.noise(weights=[name]) < 1e-3
        assert coarse.noise(weights=[name]) > 10 * fine.noise(weights=[name])


def test_noise_adds_up(digits: Model) -> None:
    model = Fold()(digits)
    names = [layer.name for layer in layers(model.graph)]
    read = dict.fromkeys(
        layer.node.inputs[0].name or "" for layer in layers(model.graph) if layer.node.inputs[0]
    )
    board = Switchboard(model, read, rounded(model), list(model.batches())[:2])
    assert board.noise() == 0
    values, weights = noise_of_each(board, {name: [name] for name in read}, names)
    assert values == {name: board.noise([name]) for name in read}
    assert weights == {name: board.noise(weights=[name]) for name in names}
    together = board.noise(read, names)
    assert 0.5 < together / (sum(values.values()) + sum(weights.values())) < 2
    _, hurried = noise_of_each(board, {}, names, seconds=0)
    assert len(set(hurried.values())) < len(names), "without time neighbours are measured together"


def test_codes_of_a_grid_cut_off_what_lies_beyond(build: Any, normal: Any) -> None:
    text = "g (float[N,8] x) => (float[N,4] y) { [product] y = MatMul(x, w) }"
    model = Model(ir.from_proto(build(text, w=normal(8, 4))))
    batch = [{"x": normal(16, 8)}]
    wide, narrow = (Codes(width / 255, np.uint8(128)) for width in (8, 1))
    noise = [Switchboard(model, {"x": codes}, {}, batch).noise(["x"]) for codes in (None, wide, narrow)]
    assert 0 < noise[0] < 1e-3 and 0 < noise[1] < 1e-3 < noise[2]


def test_what_decides_no_output_adds_no_noise(build: Any, normal: Any) -> None:
    text = """g (float[N,8] x) => (int64[N] y) {
        [scores] a = MatMul(x, w) y = ArgMax<axis = 1, keepdims = 0>(a) [unread] b = MatMul(x, v) }"""
    model = Model(ir.from_proto(build(text, w=normal(8, 4), v=normal(8, 4))))
    board = Switchboard(model, {"b": None}, rounded(model), [{"x": normal(16, 8)}])
    assert board.noise(weights=["scores"]) > 0
    assert board.noise(weights=["unread"]) == board.noise(["b"]) == 0


def test_noise_of_a_recurrent_layer_is_that_of_both_its_weights(recurrent: Model) -> None:
    model = Fold()(recurrent.prepared())
    names = [node.name or "" for node in model.graph if node.op_type in ("GRU", "LSTM")]
    board = Switchboard(model, {}, rounded(model), list(model.batches()))
    assert names and all(0 < board.noise(weights=[name]) < 1e-2 for name in names)


def test_noise_of_a_classifier_that_is_the_embedding_too(transformer: Model) -> None:
    tied = transformer.graph.initializers["embedding.weight"]
    turned = next(use.node for use in tied.uses() if use.node.op_type == "Transpose")
    names = [node.name or "" for node in turned.outputs[0].consumers()]
    board = Switchboard(transformer, {}, rounded(transformer), list(transformer.batches()))
    assert names and all(0 < board.noise(weights=[name]) < 1e-2 for name in names)


@pytest.mark.parametrize("inner", [True, False])
def test_values_of_any_place_can_be_rounded(build: Any, normal: Any, inner: bool) -> None:
    """An input of the graph, and one that a later node and an output both see."""
    text = """g (float[N,8] x) => (float[N,8] y, float[N,8] z) {
        [first] z = Relu(x) [second] y = MatMul(z, w) }"""
    model = Model(ir.from_proto(build(text, w=normal(8, 8))))
    board = Switchboard(model, dict.fromkeys(("x", "z")), {}, [{"x": normal(16, 8)}])
    assert 0 < board.noise(["z" if inner else "x"]) < 1e-3
