"""Shapes node by node, with the sizes that shape arithmetic computes on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
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
        return math.prod(self.shape)


_Rule: TypeAlias = "Callable[[ir.Node, Sequence[TensorInfo]], TensorInfo]"


class _Found(NamedTuple):
    """What one node tells: its outputs' shapes and types, and their values where they are small."""

    infos: Sequence[TensorInfo | None]
    values: Sequence[np.ndarray]


def propagate(model: ir.Model, known: dict[str, TensorInfo]) -> None:
    """Add to `known` the shape and type of every value that follows from those in it.

    Each node is given to ONNX's own inference for its operator, with the values of small constants;
    arithmetic on sizes (Shape, Gather, Concat and so on) is computed by ONNX's reference
    implementation. Bodies of If, Loop and Scan are gone through with what comes into them. Operators
    without a schema are left, and what depends on them.
    """
    constants = {
        name: np.asarray(value.const_value.numpy())
        for graph in model.graphs()
        for name, value in graph.initializers.items()
        if value.const_value is not None and value.const_value.size <= SMALL
    }
    _propagate(model.graph, model, known, constants, {})


def _propagate(
    graph: ir.Graph,
    model: ir.Model,
    known: dict[str, TensorInfo],
    constants: dict[str, np.ndarray],
    done: dict[Hashable, _Found],
) -> None:
    """Go through one graph; `done` holds the results of nodes that may come again."""
    for node in graph:
        bodies = [attr.as_graph() for attr in node.attributes.values() if attr.type == ir.AttributeType.GRAPH]
        for body in bodies:
            _enter(node, body, known)
            _propagate(body, model, known, constants, done)
        if bodies:
            if node.op_type == "If":
                _leave(node, bodies, known)
            continue
        if any(value is not None and value.name not in known for value in node.inputs):
            continue
        key = _signature(node, known, constants)
        found = done.get(key) if key is not None else None
        if found is None:
            infos = _infer(node, model, known, constants)
            found = _Found(infos, _compute(node, model, known, constants, infos))
            done[key] = found
        for value, info in zip(node.outputs, found.infos, strict=False):
            if info is not None and value.name:
                known.setdefault(value.name, info)
        names = [value.name or "" for value in node.outputs]
        constants.update(zip(names, found.values, strict=False))


def _enter(node: ir.Node, body: ir.Graph, known: dict[str, TensorInfo]) -> None:
    """Give the inputs of a loop's body the shapes of what comes into it."""
    infos = [known.get(value.name or "") if value is not None else None for value in node.inputs]
    if node.op_type == "Loop":
        infos[:2] = [TensorInfo((), ir.DataType.INT64), TensorInfo((), ir.DataType.BOOL)]
    elif node.op_type == "Scan":
        first = len(infos) - node.attributes["num_scan_inputs"].as_int()
        infos[first:] = [info and TensorInfo(info.shape[1:], info.dtype) for info in infos[first:]]
    for value, info in zip(body.inputs, infos, strict=False):
        if info is not None and value.name:
            known.setdefault(value.name, info)


def _leave(node: ir.Node, branches: Sequence[ir.Graph], known: dict[str, TensorInfo]) -> None:
    """Give the outputs of an If the shapes that its branches agree on."""
    for value, *results in zip(node.outputs, *(branch.outputs for branch in branches), strict=False):
        infos = {known.get(result.name or "") for result in results}
        info = infos.pop()
        if not infos and info is not None and value.name:
            known.setdefault(value.name, info)


_PLAIN = frozenset(
    (
        ir.AttributeType.INT,
        ir.AttributeType.INTS,
        ir.AttributeType.FLOAT,
        ir.AttributeType.FLOATS,
        ir.AttributeType.STRING,
        ir.AttributeType.STRINGS,
    )
)
"""Types of attributes whose values can be compared."""


def _signature(
    node: ir.Node, known: Mapping[str, TensorInfo], constants: Mapping[str, np.ndarray]
) -> Hashable:
    """Return what decides a node's result; None where an attribute is more than numbers and words."""
    if any(attr.type not in _PLAIN for attr in node.attributes.values()):
        return None
    names = [value.name or "" if value is not None else "" for value in node.inputs]
    values = tuple(constants[name].tobytes() if name in constants else None for name in names)
    return (
        node.op_identifier(),
        len(node.outputs),
        tuple((name, attr.value) for name, attr in node.attributes.items()),
        tuple(known.get(name) for name in names),
        values,
    )


def _infer(
    node: ir.Node, model: ir.Model, known: Mapping[str, TensorInfo], constants: Mapping[str, np.ndarray]
) -> list[TensorInfo | None]:
    """Return shape and type of the outputs; None for those that the node alone does not tell."""
    rule = _CONTRIB.get(node.op_type) if node.domain == "com.microsoft" else None
    if rule is not None and node.inputs[0] is not None:
        return [rule(node, [known[value.name or ""] for value in node.inputs if value is not None])]
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
    node: ir.Node,
    model: ir.Model,
    known: Mapping[str, TensorInfo],
    constants: Mapping[str, np.ndarray],
    infos: Sequence[TensorInfo | None],
) -> list[np.ndarray]:
    """Return the values of a node's outputs, if all inputs are there and they are small; else nothing."""
    if len(infos) < len(node.outputs) or any(info is None or info.elements > SMALL for info in infos):
        return []
    if node.op_type in ("Shape", "Size") and not node.domain:
        return [_sizes(node, known[node.inputs[0].name or ""].shape)]  # type: ignore[union-attr]
    inputs = [value.name or "" for value in node.inputs if value is not None]
    if any(name not in constants for name in inputs) or node.domain or _has_no_values(node):
        return []
    from onnx.reference import ReferenceEvaluator

    try:
        computed = ReferenceEvaluator(ir.serde.serialize_node(node), opsets={"": _version(node, model)}).run(
            None, {name: constants[name] for name in inputs}
        )
    except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError):
        return []  # what it steers is then found by a run
    return [np.asarray(array) for array in computed]


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


def _like_input(node: ir.Node, inputs: Sequence[TensorInfo]) -> TensorInfo:
    return inputs[0]


def _packed_product(node: ir.Node, inputs: Sequence[TensorInfo]) -> TensorInfo:
    return TensorInfo((*inputs[0].shape[:-1], node.attributes["N"].as_int()), inputs[0].dtype)


def _packed_rows(node: ir.Node, inputs: Sequence[TensorInfo]) -> TensorInfo:
    """GatherBlockQuantized: rows of a table of codes; bytes hold several along the last axis."""
    data, indices, scales = inputs[:3]
    axis = node.attributes["gather_axis"].as_int() if "gather_axis" in node.attributes else 0
    bits = node.attributes["bits"].as_int() if "bits" in node.attributes else 4
    table = list(data.shape)
    if data.dtype is ir.DataType.UINT8:
        table[-1] *= 8 // bits
    return TensorInfo((*table[:axis], *indices.shape, *table[axis + 1 :]), scales.dtype)


_CONTRIB: Mapping[str, _Rule] = {
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _packed_product),
    "GatherBlockQuantized": _packed_rows,
    **dict.fromkeys(
        ("BiasGelu", "FastGelu", "Gelu", "QLinearSigmoid", "QuickGelu", "RotaryEmbedding"), _like_input
    ),
}
"""Shapes of the frequent contrib operators; others are found by a run."""
