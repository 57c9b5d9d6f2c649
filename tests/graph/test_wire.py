"""Tensors in the bytes of an ONNX file, found and replaced without a parser of protobuf."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ModelError
from compress.graph.wire import fields, hollow, tensors


def model(*initializers: TensorProto, constant: TensorProto | None = None) -> bytes:
    nodes = [helper.make_node("Identity", ["w"], ["y"])]
    if constant is not None:
        nodes.append(helper.make_node("Constant", [], ["k"], value=constant))
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", 1, None)], initializers)
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.fixture
def weight() -> np.ndarray:
    return np.arange(600, dtype=np.float32).reshape(20, 30)


def test_a_tensor_is_described_where_it_lies(weight: np.ndarray) -> None:
    data = model(numpy_helper.from_array(weight, "w"), constant=numpy_helper.from_array(weight, "k"))
    found = {tensor.name: tensor for tensor in tensors(data)}
    assert {name: tensor.is_initializer for name, tensor in found.items()} == {"w": True, "k": False}
    for tensor in found.values():
        assert tensor.raw is not None
        start, size = tensor.raw
        assert (tensor.dims, tensor.kind, data[start : start + size]) == (
            [20, 30],
            "float32",
            weight.tobytes(),
        )


def test_values_in_fields_of_their_own_are_of_the_fields_kind(weight: np.ndarray) -> None:
    data = model(
        helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel()),
        helper.make_tensor("i", TensorProto.INT64, (300,), range(300)),
    )
    kinds = {tensor.name: [kind for kind, *_ in tensor.payloads] for tensor in tensors(data)}
    assert kinds == {"w": ["float32"], "i": ["varint"]}


def test_values_move_to_another_file_or_come_back_as_bytes(weight: np.ndarray) -> None:
    data = model(numpy_helper.from_array(weight, "w"), numpy_helper.from_array(weight[0], "v"))
    places = {tensor.name: tensor.start for tensor in tensors(data)}
    moved = onnx.load_from_string(hollow(data, {places["w"]: ("file", 4096, 2400), places["v"]: bytes(120)}))
    w, v = moved.graph.initializer
    assert {entry.key: entry.value for entry in w.external_data} == {
        "location": "file",
        "offset": "4096",
        "length": "2400",
    }
    assert w.data_location == TensorProto.EXTERNAL and not w.raw_data and list(w.dims) == [20, 30]
    assert not numpy_helper.to_array(v).any()
    assert hollow(data, {}) == data


@pytest.mark.parametrize(
    "data",
    [b"\x80", b"\x80" * 11, b"\x0b", b"\x12\x05abc", b"\x02\x00", b"\x09\x00"],
    ids=["varint cut", "varint too long", "group", "length too long", "field 0", "8 bytes cut"],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="not an ONNX file"):
        list(fields(data, 0, len(data)))


def test_graphs_nested_too_deeply_are_refused() -> None:
    # An If in an If, to a depth that no exporter writes; field by field, since protobuf refuses it too.
    def field(number: int, content: bytes) -> bytes:
        size, head = len(content), [number << 3 | 2]
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        return bytes([*head, size]) + content

    graph = field(1, field(5, bytes(2000)))
    for _ in range(40):
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ModelError, match="nested too deeply"):
        tensors(field(7, graph))
