"""Weights in floating-point formats of fewer bits, and whole graphs that compute in float16."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx_ir as ir

from compress.changes import Change, Reason
from compress.errors import FatalModelError, ModelError
from compress.graph.layers import array, is_float_weight, nbytes, stored_type
from compress.graph.precision import HALVES, compute_in, computes_in
from compress.graph.session import session
from compress.numerics.formats import FloatFormat
from compress.quantize.nodes import widen_weight

if TYPE_CHECKING:
    from compress.model import Model

TYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
}
"""Numpy types of the formats by name."""

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
"""Operators whose scales are too small for float16."""


def store_float_weights(model: Model, chosen: Callable[..., bool], format: FloatFormat) -> list[Change]:
    """Store all chosen weights in `format`, in place, each followed by a Cast to the type that it had.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a weight and of the nodes that read it.
        format: the format of the weights; a weight beyond its range stays as it is.

    Returns:
        A change per weight.
    """
    values = model.graph.initializers.values()
    weights = [value for value in values if is_float_weight(value, rank=1) and array(value).size > 1]
    return [_store(weight, chosen, format) for weight in weights]


def _store(weight: ir.Value, chosen: Callable[..., bool], format: FloatFormat) -> Change:
    name = weight.name or ""
    if not chosen(name, *(node.name for node in weight.consumers())):
        return Change(name, skipped=Reason.LEFT_OUT)
    before, size, scale = array(weight), nbytes(weight), None
    if size <= before.size * TYPES[format.name].itemsize:
        return Change(name, skipped=Reason.NO_GAIN.because(f"it is stored in {stored_type(weight)}"))
    if not np.isfinite(before).all():
        return Change(name, skipped=Reason.NOT_FINITE)
    if format.scaled:
        highest = float(np.abs(before).max()) / format.largest
        scale = np.float32(max(highest, float(np.finfo(np.float32).tiny)))
    with np.errstate(over="ignore"):
        after = (before if scale is None else before / scale).astype(TYPES[format.name])
    if not np.isfinite(after.astype(np.float32)).all():
        return Change(
            name,
            skipped=Reason.LOSS.because(f"values beyond {format.largest:g}, the largest of {format.name}"),
        )
    widen_weight(weight, ir.tensor(after), scale)
    restored = after.astype(np.float32) * (1 if scale is None else scale)
    stored = after.nbytes + (0 if scale is None else scale.nbytes)
    return Change(name, format.name, size, stored, _relative_error(before, restored))


def compute_in_float16(model: Model, chosen: Callable[..., bool]) -> list[Change]:
    """Convert arithmetic and weights of all chosen nodes to float16, in place.

    Inputs and outputs of the graph keep their types, and so do nodes whose operator takes no float16.

    Args:
        model: the model; changed in place.
        chosen: called with the name of a node.

    Returns:
        A change for the whole graph, and one for each weight.
    """
    if computes_in(model.ir, HALVES):
        return [Change("graph", skipped=Reason.NO_GAIN.because("it computes in 16-bit floats"))]
    before, turning = model.ir.clone(), {node.name for node in model.graph if node.op_type == "Transpose"}
    changes = _convert(model, chosen)
    try:
        session(model.ir)
    except FatalModelError:
        # ONNX Runtime 1.32 dies of some products of float16 that a Transpose feeds.
        model.ir = before
        changes = _convert(model, lambda name: chosen(name) and name not in turning)
    except ModelError:
        pass  # other runtimes may take it; whether this one does, its score tells
    return changes


def _convert(model: Model, chosen: Callable[..., bool]) -> list[Change]:
    """Convert all chosen nodes, once."""
    wide = ir.DataType.FLOAT if computes_in(model.ir, [ir.DataType.FLOAT]) else ir.DataType.DOUBLE
    weights = [
        (graph, value)
        for graph in model.ir.graphs()
        for value in graph.initializers.values()
        if value.dtype == wide
    ]
    reasons = {value: _reason_to_stay(value, chosen) for _, value in weights}
    sizes = {value: nbytes(value) for value in reasons}

    def fits(node: ir.Node) -> bool:
        return not (node.op_type in QUANTIZERS or any(map(reasons.get, filter(None, node.inputs))))

    nodes = compute_in(model.ir, ir.DataType.FLOAT16, [wide], lambda node: chosen(node.name) and fits(node))
    if not nodes:
        left = [Change(value.name or "", skipped=reason) for value, reason in reasons.items() if reason]
        return left or [Change("graph", skipped=Reason.USE.because("no operator takes float16"))]
    total = sum(1 for _ in model.ir.graph.all_nodes())
    changes = [Change("graph", f"{len(nodes)} of {total} nodes compute in float16")]
    for graph, old in weights:
        name = old.name or ""
        new = graph.initializers.get(name)
        if new is old:
            changes.append(Change(name, skipped=reasons[old] or Reason.USE.because("no float16")))
        elif new is not None:
            error = _relative_error(array(old), array(new))
            changes.append(Change(name, "computes in float16", sizes[old], nbytes(new), error))
    return changes


def _reason_to_stay(weight: ir.Value, chosen: Callable[..., bool]) -> str:
    """Return why the nodes that read a weight do not compute in float16; empty if they may."""
    if weight.is_graph_output():
        return Reason.OUTPUT
    if not any(chosen(node.name) for node in weight.consumers()):
        return Reason.LEFT_OUT
    largest = float(ir.DataType.FLOAT16.max)
    content = np.abs(array(weight))
    if (content[np.isfinite(content)] > largest).any():
        return Reason.LOSS.because(f"it has values beyond {largest:g}, the largest of float16")
    return ""


def _relative_error(before: np.ndarray, after: np.ndarray) -> float:
    norm = float(np.linalg.norm(before))
    return float(np.linalg.norm(before - after)) / norm if norm else 0.0
