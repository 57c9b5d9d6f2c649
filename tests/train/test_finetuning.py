"""What a training makes of a model: samples of a step, and how fast it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from compress.data import Data
from compress.errors import PassError
from compress.graph.batch import BatchAxes
from compress.model import Model
from compress.train.examples import Batch
from compress.train.finetuning import attends, axes_of_samples, fit, samples_of_a_step
from compress.train.settings import Training


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _axes(model: onnx.ModelProto, *shape: int) -> dict[str, int]:
    feeds = [{"x": _random(*shape, seed=seed)} for seed in range(3)]
    batches = [Batch({"x": torch.from_numpy(each["x"])}) for each in feeds]
    return dict(axes_of_samples(Model(ir.from_proto(model), calibration=Data(feeds)), batches).inputs)


def test_steps_of_time_are_no_samples_to_shuffle() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[T, S, 4] x) => (float[T, S, 4] y) { y = CumSum (x, axis) }"""
    proto = onnx.parser.parse_model(text)
    found = {}
    for axis in (0, 1, 2):
        proto.graph.ClearField("initializer")
        proto.graph.initializer.append(numpy_helper.from_array(np.array(axis), "axis"))
        found[axis] = _axes(proto, 5, 3, 4)
    assert found == {0: {"x": 1}, 1: {"x": 0}, 2: {"x": 0}}


def test_batches_that_the_graph_alone_takes_stay_as_they_are() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 4] x) => (float[N, 4] y) <int64[2] shape = {3, 4}> { y = Reshape (x, shape) }"""
    assert _axes(onnx.parser.parse_model(text), 3, 4) == {}


def test_samples_are_mixed_only_where_their_axis_is_known() -> None:
    known, unknown = BatchAxes({"x": 0}), BatchAxes()
    assert [samples_of_a_step(Training(), axes) for axes in (known, unknown)] == [32, 0]
    assert samples_of_a_step(Training(batch_size=5), known) == 5
    with pytest.raises(PassError, match="batch_size needs batches of one shape"):
        samples_of_a_step(Training(batch_size=5), unknown)


def test_networks_with_attention_learn_more_slowly(transformer: Model, recurrent: Model) -> None:
    assert attends(transformer.graph)
    assert not attends(recurrent.graph)


@pytest.mark.parametrize(
    ("graph", "feeds", "message"),
    [
        (
            "(float[N,4] x) => (int64[N] y) { y = ArgMax<axis=1, keepdims=0>(x) }",
            {"x": _random(3, 4)},
            "no output",
        ),
        ("(float[N,4] x) => (seq(float) y) { y = SplitToSequence(x) }", {"x": _random(3, 4)}, "'y' is not a"),
        (
            "(string[N] t) => (float[4] y) { s = StringNormalizer(t) y = Identity(w) }",
            {"t": ["a"]},
            "'t' is no",
        ),
        ("() => (float[4] y) { y = Neg(w) }", {}, "no inputs"),
    ],
)
def test_what_cannot_be_trained_is_said(graph: str, feeds: Any, message: str) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {graph}')
    proto.graph.initializer.append(numpy_helper.from_array(_random(4), "w"))
    model = Model(ir.from_proto(proto), calibration=Data([feeds]))
    with pytest.raises(PassError, match=f"cannot train.*{message}"):
        fit(model, model.ir, ["w"], Training(), auto_rate=1e-3, changed=True)
