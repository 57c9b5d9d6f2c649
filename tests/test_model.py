"""The model: copies, sizes, files, sessions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import compress
from compress.errors import DataError, ModelError, StoreError


@pytest.fixture
def model(build, normal):
    text = "g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }"
    return compress.load(build(text, w=normal(8, 4)))


def test_a_copy_can_be_edited_alone(model):
    copy = model.copy()
    copy.graph.initializers["w"].const_value = ir.tensor(np.zeros((8, 4), np.float32), name="w")
    assert not copy.run({"x": np.ones((1, 8), np.float32)})[0].any()
    assert model.run({"x": np.ones((1, 8), np.float32)})[0].any()
    assert copy.original is model.original is model


def test_bytes_count_four_bit_types_half(model):
    assert model.weight_bytes == 8 * 4 * 4
    weight = model.graph.initializers["w"]
    codes = weight.const_value.numpy().astype(ir.DataType.INT4.numpy())
    weight.const_value = ir.tensor(codes, dtype=ir.DataType.INT4, name="w")
    assert model.weight_bytes == 8 * 4 // 2


def test_passes_that_need_data_say_so(model):
    with pytest.raises(DataError, match="needs calibration data; load the model with"):
        model.batches()


def test_a_file_is_written_whole_or_not_at_all(model, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"model\.onnx: cannot be written"):
        model.save(tmp_path / "taken" / "model.onnx")
    model.save(tmp_path / "new" / "model.onnx")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]


def test_large_weights_go_beside_the_model(model, tmp_path, monkeypatch):
    feeds = {"x": np.ones((1, 8), np.float32)}
    expected = model.run(feeds)[0]
    monkeypatch.setattr("compress.graph.files.EXTERNAL_ABOVE_BYTES", 16)
    model.save(tmp_path / "big.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
    again = compress.load(tmp_path / "big.onnx")
    np.testing.assert_array_equal(again.run(feeds)[0], expected)


def test_a_graph_that_the_runtime_refuses_is_an_error_of_the_model(build, normal):
    wrong = compress.load(build("g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(6, 4)))
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load the model: .*Incompatible dimensions"):
        wrong.run({"x": np.ones((1, 8), np.float32)})


def test_a_file_leaves_out_what_lies_between_its_ends(tmp_path, build):
    text = "g (float[N,4] x) => (float[N,2] y) { h = MatMul(x, w) y = Relu(h) }"
    model = compress.load(onnx.shape_inference.infer_shapes(build(text, w=np.ones((4, 2), np.float32))))
    saved = onnx.load(model.save(tmp_path / "model.onnx"))
    assert model.graph[0].outputs[0].shape is not None and not saved.graph.value_info
    onnx.checker.check_model(saved, full_check=True)
