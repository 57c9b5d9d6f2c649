"""Graphs on disk: whole files, large weights beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import compress
from compress.errors import ModelError, StoreError
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


def test_a_file_says_what_it_said(model: ir.Model, tmp_path: Path, build: Callable[..., Any]) -> None:
    text = "g (float[N,4] x) => (float[N,2] y) { h = MatMul(x, w) y = Relu(h) }"
    brought = onnx.shape_inference.infer_shapes(build(text, w=np.ones((4, 2), np.float32)))
    saved = onnx.load(files.save(files.read(brought), tmp_path / "model.onnx"))
    assert onnx.printer.to_text(saved) == onnx.printer.to_text(brought)
    assert saved.graph.value_info == brought.graph.value_info


def sparse(build: Callable[..., Any]) -> onnx.ModelProto:
    proto = build("g (float[N,2] x) => (float[N,3] y) { y = MatMul(x, w) }")
    values = onnx.numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    places = onnx.numpy_helper.from_array(np.array([0, 5]))
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [2, 3]))
    return proto


def test_sparse_weights_are_read_as_dense_ones(build: Callable[..., Any]) -> None:
    feeds = {"x": np.array([[3, 5]], np.float32)}
    (found,) = session(files.read(sparse(build))).run(None, feeds)
    np.testing.assert_array_equal(found, [[3, 0, 10]])


@pytest.mark.parametrize(("place", "sizes"), [(99, [2, 3]), (5, [4_000_000, 4_000_000])])
def test_sparse_weights_that_cannot_be_are_refused(
    build: Callable[..., Any], place: int, sizes: list[int]
) -> None:
    proto = sparse(build)
    values = onnx.numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    places = onnx.numpy_helper.from_array(np.array([0, place]))
    proto.graph.sparse_initializer[0].CopyFrom(onnx.helper.make_sparse_tensor(values, places, sizes))
    with pytest.raises(ModelError, match=r"out of bounds|is too large"):
        compress.load(proto)


def test_an_input_that_is_a_map_is_refused(build: Callable[..., Any]) -> None:
    proto = build("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    key, number = onnx.TensorProto.STRING, onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    proto.graph.input[0].type.CopyFrom(onnx.helper.make_map_type_proto(key, number))
    with pytest.raises(ModelError, match="the input 'x' is a map"):
        compress.load(proto)


def test_weights_are_not_replaced_under_the_model_that_reads_them(
    model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 16)
    monkeypatch.setattr(files, "BESIDE_FROM_BYTES", 16)
    beside = compress.load(files.save(model, tmp_path / "big.onnx"))
    with pytest.raises(StoreError, match=r"own weights lie in big\.onnx\.data; save it under another name"):
        beside.save(tmp_path / "big.onnx")
    assert beside.save(tmp_path / "other.onnx").exists()


def test_what_has_no_meaning_is_mended(build: Callable[..., Any]) -> None:
    proto = build("g (float[N,4] x) => (float[N,4] y) { h = Relu(x) y = Sqrt(h) }")
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.name = ""
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(proto)
    model = files.read(proto)
    assert not files.fault(model)
    assert [node.op_type for node in model.graph] == ["Relu", "Sqrt"]
    assert not isinstance(model.graph.inputs[0].shape[0], int)


def test_maps_come_back_as_they_were(build: Callable[..., Any]) -> None:
    proto = build("g (float[N,3] x) => (float y) { y = Softmax(x) }", ir_version=8)
    proto.graph.node[0].CopyFrom(
        onnx.helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[3, 1, 2])
    )
    proto.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    number = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    maps = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, number)
    )
    proto.graph.output[0].type.CopyFrom(maps)
    model = files.read(proto)
    assert files.to_proto(model).graph.output[0].type == maps
    (found,) = session(model).run(None, {"x": np.array([[1, 2, 3]], np.float32)})
    assert found == [{3: 1.0, 1: 2.0, 2: 3.0}]


def test_weights_in_constants_are_counted(build: Callable[..., Any]) -> None:
    text = "g (float[N,2] x) => (float[N,2] y) { w = Constant<value = float[2] {1, 2}>() y = Mul(x, w) }"
    assert files.weight_bytes(files.read(build(text))) == 8


def test_sparse_and_external_constants_are_read(tmp_path: Path) -> None:
    values, places = np.float32([3, 5]), np.array([1, 4])
    sparse = onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(values, ""), onnx.numpy_helper.from_array(places), [2, 3]
    )
    outside = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3))
    nodes = [
        onnx.helper.make_node("Constant", [], ["a"], sparse_value=sparse),
        onnx.helper.make_node("Constant", [], ["b"], value=outside),
        onnx.helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 3])
    proto = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [output]), ir_version=8)
    settings = {"size_threshold": 0, "convert_attribute": True, "location": "data.bin"}
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, **settings)
    found = session(files.read(tmp_path / "m.onnx")).run(None, {})[0]
    np.testing.assert_array_equal(found, [[0, 4, 2], [3, 9, 5]])
