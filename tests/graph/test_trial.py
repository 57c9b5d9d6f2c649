"""Files are loaded in a child process that may die."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compress.errors import FatalModelError
from compress.graph import trial
from compress.graph.session import session

FATAL = """g (float16[A,B,16] x) => (float16[B,A,24] y) {
    t = Transpose<perm=[1,0,2]>(x)
    y = MatMul(t, w)
}"""
"""ONNX Runtime 1.32 does not survive a Transpose of float16 before a MatMul."""


def test_a_file_that_loads_leaves_the_child_alive(build, tmp_path):
    onnx.save(build("g (float[N] x) => (float[N] y) { y = Relu(x) }"), tmp_path / "fine.onnx")
    (tmp_path / "bad.onnx").write_text("no model")
    assert trial.ending(tmp_path / "fine.onnx", ["CPUExecutionProvider"]) == ""
    child = trial._children[0]
    assert trial.ending(tmp_path / "bad.onnx", ["CPUExecutionProvider"]) == ""
    assert trial._children == [child]


def test_a_child_that_dies_is_told_of_and_replaced(build, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "LOADER", "import os, sys; sys.stdin.readline(); os.abort()")
    monkeypatch.setattr(trial, "_children", [])
    for _ in range(2):
        assert trial.ending(tmp_path / "any.onnx", ["CPUExecutionProvider"]) == "SIGABRT"


def test_a_file_of_the_current_folder_is_not_run(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("open('was_run', 'w').close(); raise SystemExit(3)")
    monkeypatch.setattr(trial, "_children", [])
    onnx.save(build("g (float[N] x) => (float[N] y) { y = Relu(x) }"), tmp_path / "fine.onnx")
    assert trial.ending("fine.onnx", ["CPUExecutionProvider"]) == ""
    assert trial._children[0].is_usable
    assert not (tmp_path / "was_run").exists()


def test_a_model_that_no_process_survives_is_refused(build, normal, monkeypatch):
    monkeypatch.setattr(trial, "LOADER", "import os, sys; sys.stdin.readline(); os.abort()")
    monkeypatch.setattr(trial, "_children", [])
    with pytest.raises(FatalModelError, match="ended with SIGABRT"):
        session(ir.from_proto(build(FATAL, w=normal(16, 24).astype(np.float16))))
