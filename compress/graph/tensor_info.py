"""Shape and type of a value, and what ONNX's own inference says of one operator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

SMALL = 1024
"""Tensors with more elements than this never steer a shape."""
IR_VERSION = 10
"""Version of the file format under which single nodes are inferred."""


class TensorInfo(NamedTuple):
    """Concrete shape and element type of one value."""

    shape: tuple[int, ...]
    dtype: ir.DataType

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def type_proto(info: TensorInfo) -> onnx.TypeProto:
    """Return shape and type as ONNX writes them."""
    return onnx.helper.make_tensor_type_proto(info.dtype.value, info.shape)


def info_of(proto: onnx.TypeProto | None) -> TensorInfo | None:
    """Return shape and type from what ONNX writes; None if it is no tensor or a size is open."""
    if proto is None or not proto.HasField("tensor_type"):
        return None
    tensor = proto.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    if not tensor.HasField("shape") or min(sizes, default=0) < 0:  # a window larger than its image
        return None
    return TensorInfo(tuple(sizes), ir.DataType(tensor.elem_type))


def infer_types(
    node: onnx.NodeProto,
    version: int,
    known: Mapping[str, TensorInfo],
    constants: Mapping[str, np.ndarray],
) -> Mapping[str, onnx.TypeProto]:
    """Return what ONNX says of the outputs of one node.

    Args:
        node: the node.
        version: of its operator set.
        known: shape and type of its inputs by name.
        constants: the values of small ones.

    Raises:
        onnx.defs.SchemaError: ONNX does not know the operator.
        onnx.shape_inference.InferenceError: the inputs do not fit together.
    """
    types: Mapping[str, onnx.TypeProto] = onnx.shape_inference.infer_node_outputs(
        onnx.defs.get_schema(node.op_type, version, node.domain),
        node,
        {name: type_proto(info) for name, info in known.items()},
        {name: onnx.numpy_helper.from_array(array) for name, array in constants.items()},
        opset_imports=[onnx.helper.make_opsetid(node.domain, version)],
        ir_version=IR_VERSION,
    )
    return types


def standard(
    op_type: str, inputs: Sequence[TensorInfo | None], attributes: Iterable[ir.Attr] = (), version: int = 20
) -> TensorInfo:
    """Return what an ONNX operator gives for inputs of these shapes, and types that it takes.

    Raises:
        ValueError: ONNX does not tell.
    """
    names = ["" if info is None else f"x{place}" for place, info in enumerate(inputs)]
    node = onnx.helper.make_node(op_type, names, ["y"])
    node.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in attributes)
    known = {name: info for name, info in zip(names, inputs, strict=True) if info is not None}
    found = info_of(infer_types(node, version, known, {}).get("y"))
    if found is None:
        raise ValueError(f"the shape of a {op_type} does not follow from {list(inputs)}")
    return found
