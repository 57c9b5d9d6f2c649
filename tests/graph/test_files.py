"""Graphs on disk: whole files, large weights beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compress.errors import StoreError
from compress.graph import files
from compress.graph.session import session


@pytest.fixture
def model(build: Callable[..., Any], normal: Any) -> ir.Model:
    return ir.from_proto(build("g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(8, 4)))


def test_bytes_count_four_bit_types_half(model: ir.Model) -> None:
    assert files.weight_bytes(model) == 8 * 4 * 4
    weight = model.graph.initializers["w"]
    assert weight.const_value is not None
    codes = weight.const_value.numpy().astype(ir.DataType.INT4.numpy())
    weight.const_value = ir.tensor(codes, dtype=ir.DataType.INT4, name="w")
    assert files.weight_bytes(model) == 8 * 4 // 2


def test_a_file_is_written_whole_or_not_at_all(model: ir.Model, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"model\.onnx: cannot be written"):
        files.save(model, tmp_path / "taken" / "model.onnx")
    files.save(model, tmp_path / "new" / "model.onnx")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]


def test_large_weights_go_beside_the_model(
    model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = {"x": np.ones((1, 8), np.float32)}
    (expected,) = session(model).run(None, feeds)
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 16)
    path = files.save(model, tmp_path / "big.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
    np.testing.assert_array_equal(session(path).run(None, feeds)[0], expected)


def test_a_file_leaves_out_what_lies_between_its_ends(tmp_path: Path, build: Callable[..., Any]) -> None:
    text = "g (float[N,4] x) => (float[N,2] y) { h = MatMul(x, w) y = Relu(h) }"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(build(text, w=np.ones((4, 2), np.float32))))
    saved = onnx.load(files.save(model, tmp_path / "model.onnx"))
    assert model.graph[0].outputs[0].shape is not None and not saved.graph.value_info
    onnx.checker.check_model(saved, full_check=True)
