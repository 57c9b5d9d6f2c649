"""Noise of 8-bit arithmetic, each layer on its own."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from compress.diagnose.sensitivity import Switchboard, output_noise
from compress.graph.layers import layers
from compress.model import Model
from compress.passes import Fold


def test_noise_of_a_layer_is_that_of_rounding_it_alone(digits: Model) -> None:
    model = Fold()(digits)
    names = [layer.name for layer in layers(model.graph)]
    noise = output_noise(model, names, list(model.batches())[:1])
    assert set(noise) == set(names)
    assert all(0 < value < 1e-3 for value in noise.values())
    coarse = output_noise(model, names, list(model.batches())[:1], bits=4)
    assert all(coarse[name] > 10 * noise[name] for name in names)


def test_noise_adds_up(digits: Model) -> None:
    model = Fold()(digits)
    names = [layer.name for layer in layers(model.graph)]
    batches = list(model.batches())[:2]
    board = Switchboard(model, names, batches)
    assert board.noise(()) == 0
    single = output_noise(model, names, batches)
    assert single == {name: board.noise([name]) for name in names}
    assert 0.5 < board.noise(names) / sum(single.values()) < 2
    hurried = output_noise(model, names, batches, seconds=0)
    assert len(set(hurried.values())) == 1, "without time all layers are measured together"
    assert sum(hurried.values()) == pytest.approx(board.noise(names))


def test_a_layer_that_decides_no_output_adds_no_noise(build: Any, normal: Any) -> None:
    text = """g (float[N,8] x) => (int64[N] y) {
        [scores] a = MatMul(x, w) y = ArgMax<axis = 1, keepdims = 0>(a) [unread] b = MatMul(x, v) }"""
    model = Model(ir.from_proto(build(text, w=normal(8, 4), v=normal(8, 4))))
    noise = output_noise(model, ["scores", "unread"], [{"x": normal(16, 8)}])
    assert noise["scores"] > 0 and noise["unread"] == 0
    assert output_noise(model, [], [{"x": normal(16, 8)}]) == {}


def test_noise_of_a_recurrent_layer_is_that_of_both_its_weights(recurrent: Model) -> None:
    model = Fold()(recurrent.prepared())
    names = [node.name or "" for node in model.graph if node.op_type in ("GRU", "LSTM")]
    noise = output_noise(model, names, list(model.batches()))
    assert set(noise) == set(names)
    assert all(0 < value < 1e-2 for value in noise.values())


def test_noise_of_a_classifier_that_is_the_embedding_too(transformer: Model) -> None:
    tied = transformer.graph.initializers["embedding.weight"]
    turned = next(use.node for use in tied.uses() if use.node.op_type == "Transpose")
    names = [node.name or "" for node in turned.outputs[0].consumers()]
    noise = output_noise(transformer, names, list(transformer.batches()))
    assert all(0 < noise[name] < 1e-2 for name in names) and names
