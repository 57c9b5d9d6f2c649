"""Sessions: a graph and a file run alike, and the graph that the runtime makes can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compress.errors import ModelError
from compress.graph import files
from compress.graph.optimized import as_run
from compress.graph.session import session

FEEDS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


@pytest.fixture
def model(build: Callable[..., Any]) -> ir.Model:
    text = "g (float[N,4] x) => (float[N,4] y) { h = MatMul(x, w) i = Identity(h) y = Relu(i) }"
    return ir.from_proto(build(text, w=-np.eye(4, dtype=np.float32)))


def test_a_graph_and_its_file_run_alike(model: ir.Model, tmp_path: Path) -> None:
    path = files.save(model, tmp_path / "model.onnx")
    for each in (model, path, str(path)):
        np.testing.assert_array_equal(session(each).run(None, FEEDS)[0], np.zeros((2, 4), np.float32))


def test_a_large_graph_runs_through_a_file(model: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 16)
    assert session(model).run(None, FEEDS)[0].shape == (2, 4)


def test_large_weights_stay_where_they_are(build: Callable[..., Any]) -> None:
    text = "g (float[N,128] x) => (float[N,128] y) { h = MatMul(x, w) y = Add(h, b) }"
    weight = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    model = ir.from_proto(build(text, w=weight, b=np.ones(128, np.float32)))
    model.graph.initializers["w"].const_value = ir.tensor(weight, name="w")
    message, beside = files.apart(model)
    assert list(beside) == ["w"] and message.ByteSize() < weight.nbytes
    assert np.shares_memory(beside["w"], weight)
    x = np.ones((2, 128), np.float32)
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], x @ weight + 1, rtol=1e-4, atol=1e-4)
    stored = as_run(model).graph.initializers["w"].const_value
    assert stored is not None and np.array_equal(stored.numpy(), weight)


def test_options_of_a_session(model: ir.Model) -> None:
    assert session(model, threads=1).get_session_options().intra_op_num_threads == 1
    plain = session(model, optimize=False).get_session_options().graph_optimization_level
    assert plain != session(model).get_session_options().graph_optimization_level


def test_memory_is_planned_unless_values_are_observed(model: ir.Model) -> None:
    asked, observed = session(model), session(model, plans_memory=False)
    plans = [each.get_session_options().enable_mem_pattern for each in (asked, observed)]
    assert plans == [True, False]


def test_what_the_runtime_makes_of_a_graph(model: ir.Model) -> None:
    assert "Identity" not in [node.op_type for node in as_run(model).graph]
    assert "Identity" in [node.op_type for node in model.graph]


def test_a_file_that_the_runtime_refuses(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="ONNX Runtime cannot load the model"):
        session(tmp_path / "no.onnx")
