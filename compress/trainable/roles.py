"""Which initializers are learnt: decided by what the nodes that read them do with them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from compress.graph import facts
from compress.trainable.operators import Role, lookup

MASKING = -1e4
"""An added tensor with values down to this is a mask on attention scores, not a bias."""


def trained_initializers(model: ir.Model) -> set[str]:
    """Return the names of the float initializers that training should change.

    Kernels, matrices, embeddings, norm scales and biases are learnt. A vector added to features, or
    multiplied with them, is learnt if the features come from something learnt: preprocessing and
    rotary tables stay as they are, and so do masks, scalars and tables of sines. The bias of a
    convolution before a BatchNormalization, which subtracts it again, stays too.
    """
    sources = {
        value: {value}
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype.is_floating_point()
    }
    trained: set[str] = set()
    learnt: set[ir.Value | None] = set()
    for node in model.graph:
        if _rearranges(node, sources):
            origin = set().union(*(sources.get(value, set()) for value in node.inputs if value is not None))
            sources.update((value, origin) for value in node.outputs)
            continue
        operator = lookup(node.domain, node.op_type, model.opset_imports.get(node.domain, 1))
        # Weights that are codes were learnt once, and are frozen now.
        carries = facts.of(node).codes != "" or any(value in learnt for value in node.inputs)
        for place, value in enumerate(node.inputs):
            if value not in sources or operator is None or (place == 2 and _feeds_normalization(node)):
                continue
            for source in sources[value]:
                if _learns(operator.role(place), source.const_value, carries):
                    trained.add(source.name or "")
                    learnt.update(node.outputs)
        if carries:
            learnt.update(node.outputs)
    return trained


def _rearranges(node: ir.Node, sources: dict[ir.Value, set[ir.Value]]) -> bool:
    """Tell whether a node only puts initializers into another order."""
    operator = facts.of(node)
    if not (operator.rearranges or operator.name == "Cast"):
        return False
    return all(value in sources for value in node.inputs[: operator.operands])


def _feeds_normalization(node: ir.Node) -> bool:
    readers = [use.node.op_type for use in node.outputs[0].uses()]
    return "Conv" in node.op_type and set(readers) == {"BatchNormalization"}


def _learns(role: Role | None, tensor: ir.TensorProtocol | None, features: bool) -> bool:
    """Tell whether a tensor in some role is learnt; `features`: its other operand is."""
    if tensor is None:
        return False
    long = [size for size in tensor.shape.numpy() if size > 1]
    match role:
        case Role.WEIGHT:
            return True
        case Role.MATRIX:
            return (len(tensor.shape) == 2 or len(long) > 1) and not _holds_sines(tensor)
        case Role.SHIFT:
            visible = features and bool(long) and bool((tensor.numpy() > MASKING).all())
            return visible and not _holds_sines(tensor)
        case Role.SCALE:
            return features and len(long) == 1
        case _:
            return False


def _holds_sines(tensor: ir.TensorProtocol) -> bool:
    """Recognize a computed table of positions: nothing beyond one, and the first row exactly 0 or 1."""
    array = tensor.numpy()
    if array.ndim < 2 or not array.size:
        return False
    rows = array.reshape(-1, array.shape[-1])
    largest = float(np.abs(rows).max())
    return 0.9 < largest <= 1.0 and len(rows) > 1 and bool(np.isin(rows[0], (0.0, 1.0)).all())
