"""Shapes node by node, with the sizes that shape arithmetic computes on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    import onnx

SMALL = 1024
"""Tensors with more elements than this never steer a shape."""


class TensorInfo(NamedTuple):
    """Concrete shape and element type of one value."""

    shape: tuple[int, ...]
    dtype: ir.DataType

    @property
    def elements(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


_Rule: TypeAlias = Callable[[ir.Node, TensorInfo], TensorInfo]


def propagate(model: ir.Model, known: dict[str, TensorInfo]) -> None:
    """Add to `known` the shape and type of every value that follows from those in it.

    Each node is given to ONNX's own inference for its operator, with the values of small constants;
    arithmetic on sizes (Shape, Gather, Concat and so on) is computed by ONNX's reference
    implementation. Nodes with bodies and operators without a schema are left, and what depends on
    them.
    """
    constants = {
        name: np.asarray(value.const_value.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.size <= SMALL
    }
    for node in model.graph:
        if any(value is not None and value.name not in known for value in node.inputs):
            continue
        if any(
            attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attr in node.attributes.values()
        ):
            continue
        found = _infer(node, model, known, constants)
        for value, info in zip(node.outputs, found, strict=False):
            if info is not None and value.name:
                known.setdefault(value.name, info)
        _compute(node, model, known, constants)


def _infer(
    node: ir.Node, model: ir.Model, known: Mapping[str, TensorInfo], constants: Mapping[str, np.ndarray]
) -> list[TensorInfo | None]:
    """Return shape and type of the outputs; None for those that the node alone does not tell."""
    rule = _CONTRIB.get(node.op_type) if node.domain == "com.microsoft" else None
    if rule is not None and node.inputs[0] is not None:
        return [rule(node, known[node.inputs[0].name or ""])]
    import onnx

    version = _version(node, model)
    names = [value.name for value in node.inputs if value is not None and value.name]
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        types = onnx.shape_inference.infer_node_outputs(
            schema,
            ir.serde.serialize_node(node),
            {name: _type(known[name]) for name in names},
            {name: onnx.numpy_helper.from_array(constants[name]) for name in names if name in constants},
            opset_imports=[onnx.helper.make_opsetid(node.domain, version)],
            ir_version=model.ir_version or 10,
        )
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return []
    return [_info(types.get(value.name or "")) for value in node.outputs]


def _compute(
    node: ir.Node, model: ir.Model, known: Mapping[str, TensorInfo], constants: dict[str, np.ndarray]
) -> None:
    """Add the values of a node's outputs to `constants`, if all inputs are there and they are small."""
    outputs = [value.name or "" for value in node.outputs]
    if any(name not in known or known[name].elements > SMALL for name in outputs):
        return
    if node.op_type in ("Shape", "Size") and not node.domain:
        constants[outputs[0]] = _sizes(node, known[node.inputs[0].name or ""].shape)  # type: ignore[union-attr]
        return
    inputs = [value.name or "" for value in node.inputs if value is not None]
    if any(name not in constants for name in inputs) or node.domain or _has_no_values(node):
        return
    from onnx.reference import ReferenceEvaluator

    try:
        computed = ReferenceEvaluator(ir.serde.serialize_node(node), opsets={"": _version(node, model)}).run(
            None, {name: constants[name] for name in inputs}
        )
    except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError):
        return  # what it steers is then found by a run
    constants.update((name, np.asarray(array)) for name, array in zip(outputs, computed, strict=True))


def _has_no_values(node: ir.Node) -> bool:
    """Tell whether a node's result is not a matter of its inputs alone."""
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial", "Dropout")


def _sizes(node: ir.Node, shape: tuple[int, ...]) -> np.ndarray:
    if node.op_type == "Size":
        return np.array(np.prod(shape, dtype=np.int64))
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    chosen = shape[start.as_int() if start else 0 : end.as_int() if end else len(shape)]
    return np.array(chosen, np.int64)


def _version(node: ir.Node, model: ir.Model) -> int:
    return node.version or model.graph.opset_imports.get(node.domain, 1)


def _type(info: TensorInfo) -> onnx.TypeProto:
    import onnx

    return onnx.helper.make_tensor_type_proto(info.dtype.value, info.shape)


def _info(proto: onnx.TypeProto | None) -> TensorInfo | None:
    if proto is None or not proto.HasField("tensor_type"):
        return None
    tensor = proto.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return TensorInfo(tuple(dim.dim_value for dim in tensor.shape.dim), ir.DataType(tensor.elem_type))


def _like_input(node: ir.Node, first: TensorInfo) -> TensorInfo:
    return first


def _packed_product(node: ir.Node, first: TensorInfo) -> TensorInfo:
    return TensorInfo((*first.shape[:-1], node.attributes["N"].as_int()), first.dtype)


_CONTRIB: Mapping[str, _Rule] = {
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _packed_product),
    **dict.fromkeys(
        ("BiasGelu", "FastGelu", "Gelu", "QLinearSigmoid", "QuickGelu", "RotaryEmbedding"), _like_input
    ),
}
"""Shapes of the frequent contrib operators; others are found by a run."""
