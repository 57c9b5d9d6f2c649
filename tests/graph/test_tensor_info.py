"""Shapes and types of single operators, as ONNX infers them."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from compress.graph.tensor_info import TensorInfo, info_of, standard, type_proto

FLOAT = ir.DataType.FLOAT


def test_a_type_survives_the_way_to_onnx_and_back() -> None:
    info = TensorInfo((2, 0, 3), ir.DataType.INT4)
    assert info_of(type_proto(info)) == info and info.elements == 0
    assert info_of(type_proto(TensorInfo((), FLOAT))) == TensorInfo((), FLOAT)


def test_open_sizes_unknown_ranks_and_sequences_are_not_known() -> None:
    tensor = onnx.helper.make_tensor_type_proto
    for proto in (
        tensor(1, ["N", 3]),
        tensor(1, None),
        onnx.helper.make_sequence_type_proto(tensor(1, [2])),
        None,
    ):
        assert info_of(proto) is None


def test_an_operator_is_inferred_from_shapes_and_attributes_alone() -> None:
    image, kernel = TensorInfo((1, 3, 8, 8), FLOAT), TensorInfo((4, 3, 3, 3), FLOAT)
    found = standard("Conv", [image, kernel], [ir.AttrInt64s("strides", [2, 2])])
    assert found == TensorInfo((1, 4, 3, 3), FLOAT)
    assert standard("Clip", [image, None, TensorInfo((), FLOAT)]) == image


def test_what_onnx_does_not_tell_is_an_error() -> None:
    with pytest.raises(ValueError, match="the shape of a Reshape does not follow"):
        standard("Reshape", [TensorInfo((4,), FLOAT), TensorInfo((2,), ir.DataType.INT64)])
