"""What one node tells of its outputs, alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from compress.graph.shape_rules import BOUNDS, RULES
from compress.graph.shape_rules.call import Call, apply
from compress.graph.tensor_info import SMALL, TensorInfo, infer_types, info_of

DATA = "gives a size that depends on the content of its inputs; make that content a constant of the model"
"""Why a shape is not known, for a message that has named the node."""
UNKNOWN_OPERATOR = (
    "is of an operator whose shapes neither ONNX nor compress knows; write the shapes of its outputs into "
    "the model, or add a rule to compress/graph/shape_rules"
)
"""Why a shape is not known, for a message that has named the node."""
_PLAIN = frozenset(ir.AttributeType[name + many] for name in ("INT", "FLOAT", "STRING") for many in ("", "S"))
"""Types of attributes whose values can be compared."""


@dataclass(slots=True)
class NodeShapes:
    """What one node tells of its outputs.

    Attributes:
        infos: their shapes and types; None for what is not known, or is no tensor.
        values: their contents, where they follow from small constants.
        others: the places of those that are no tensors.
        reason: why the shape of some is not known.
    """

    infos: list[TensorInfo | None]
    values: Sequence[np.ndarray] = ()
    others: frozenset[int] = frozenset()
    reason: str = ""


def called(node: ir.Node) -> str:
    """Return how a message calls a node."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"node {node.name!r} ({operator})"


def of_node(call: Call) -> NodeShapes:
    """Return what a node tells: by rule, else by ONNX, else by its content, else an upper bound."""
    node = call.node
    key, count = (node.domain, node.op_type), len(node.outputs)
    found = NodeShapes([None] * count, reason=DATA)
    try:
        if key in RULES:
            infos = list(apply(RULES[key], call))
        else:
            types = _types(call)
            infos = [info_of(types.get(value.name or "")) for value in node.outputs]
            others = (
                place
                for place, name in enumerate(value.name or "" for value in node.outputs)
                if name in types and not types[name].HasField("tensor_type")
            )
            found.others = frozenset(others)
        found.infos[: len(infos)] = infos
    except onnx.defs.SchemaError:
        found.reason = UNKNOWN_OPERATOR
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        found.reason = f"does not fit its inputs: {error}"
    if not found.others:
        found.values = _compute(call, found.infos)
    if found.values:
        found.infos = [described(array) for array in found.values]
    elif None in found.infos and key in BOUNDS:
        most = [*apply(BOUNDS[key], call), *[None] * count]
        found.infos = [info or bound for info, bound in zip(found.infos, most, strict=False)]
    return found


def _types(call: Call) -> Mapping[str, onnx.TypeProto]:
    names = _names(call.node)
    known = {name: info for name, info in zip(names, call.inputs, strict=True) if info is not None}
    constants = {name: array for name, array in zip(names, call.values, strict=True) if array is not None}
    return infer_types(ir.serde.serialize_node(call.node), call.version, known, constants)


def _compute(call: Call, infos: Sequence[TensorInfo | None]) -> Sequence[np.ndarray]:
    """Return the contents of a node's outputs, if all of them and all inputs are there and small."""
    node = call.node
    if any(info is not None and info.elements > SMALL for info in infos):
        return ()
    if node.op_type in ("Shape", "Size") and not node.domain:
        return [_sizes(node, call[0].shape)]
    given = {name: array for name, array in zip(_names(node), call.values, strict=True) if name}
    known = {name: array for name, array in given.items() if array is not None}
    if len(known) < len(given) or node.domain or _has_no_values(node):
        return ()
    from onnx.reference import ReferenceEvaluator  # loads hundreds of operators, and few graphs need it

    try:
        evaluator = ReferenceEvaluator(ir.serde.serialize_node(node), opsets={"": call.version})
        computed = evaluator.run(None, known)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError):
        return ()
    arrays = [np.asarray(array) for array in computed]
    return arrays if all(array.size <= SMALL for array in arrays) else ()


def signature(call: Call) -> Hashable:
    """Return what decides a node's result; None where that is more than numbers and words."""
    node = call.node
    unlike = any(attribute.type not in _PLAIN for attribute in node.attributes.values())
    if unlike or node.op_type == "ReorderInput":  # whose result its readers decide
        return None
    return (
        node.op_identifier(),
        len(node.outputs),
        tuple((name, attribute.value) for name, attribute in node.attributes.items()),
        tuple(call.inputs),
        tuple(None if array is None else array.tobytes() for array in call.values),
    )


def _names(node: ir.Node) -> list[str]:
    return [value.name or "" if value is not None else "" for value in node.inputs]


def described(array: np.ndarray) -> TensorInfo:
    """Return shape and type of an array."""
    return TensorInfo(array.shape, ir.DataType.from_numpy(array.dtype))


def _has_no_values(node: ir.Node) -> bool:
    """Tell whether a node's result is not a matter of its inputs alone."""
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial", "Dropout")


def _sizes(node: ir.Node, shape: tuple[int, ...]) -> np.ndarray:
    if node.op_type == "Size":
        return np.array(np.prod(shape, dtype=np.int64))
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    chosen = shape[start.as_int() if start else 0 : end.as_int() if end else len(shape)]
    return np.array(chosen, np.int64)
