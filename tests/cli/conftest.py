"""The command line as a function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compress import cli


class Called(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Called]:
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["compress", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return Called(int(caught.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """The file ``linear.onnx``: a matrix product with an open batch size."""
    inputs, outputs, path = 256, 8, tmp_path / "linear.onnx"
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", inputs]))
    array = np.random.default_rng(0).normal(size=(inputs, outputs)).astype(np.float32)
    weight = ir.Value(name="w", const_value=ir.tensor(array, name="w"))
    node = ir.node("MatMul", [x, weight], name="linear")
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = x.type, ir.Shape(["batch", outputs])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 21}, name="g")
    ir.save(ir.Model(graph, ir_version=10), path)
    return path


@pytest.fixture
def integers(build: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file ``q.onnx``: an integer matrix product, for hardware that has nothing else."""
    monkeypatch.setenv("COLUMNS", "200")
    text = "g (int8[batch,256] x) => (int32[batch,64] y) { y = MatMulInteger(x, w) }"
    onnx.save(build(text, w=np.ones((256, 64), np.int8)), tmp_path / "q.onnx")
    return tmp_path / "q.onnx"


@pytest.fixture
def small(build: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file ``m.onnx``: two matrix products with an open batch size, and an input of an open length."""
    monkeypatch.setenv("COLUMNS", "200")
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal((size, 64)).astype(np.float32) for size in (256, 64))
    text = """g (float[batch,256] x, float[past] k) => (float[batch,64] y, float[past] z) {
        h = MatMul(x, w)
        r = Relu(h)
        y = MatMul(r, v)
        z = Relu(k)
    }"""
    onnx.save(build(text, w=w, v=v), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"
