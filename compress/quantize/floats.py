"""Weights in floating-point formats of fewer bits, and whole graphs that compute in float16."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.transformers.float16 import convert_float_to_float16

from compress.changes import Change, Reason
from compress.graph.layers import array, is_float_weight
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


def store_float_weights(model: Model, chosen: Callable[..., bool], format: FloatFormat) -> list[Change]:
    """Store all chosen float32 weights in `format`, in place, each followed by a Cast to float32.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a weight and of the nodes that read it.
        format: the format of the weights; a weight beyond its range stays as it is.

    Returns:
        A change per weight.
    """
    weights = [value for value in model.graph.initializers.values() if is_float_weight(value, rank=1)]
    return [_store(weight, chosen, format) for weight in weights]


def _store(weight: ir.Value, chosen: Callable[..., bool], format: FloatFormat) -> Change:
    name = weight.name or ""
    if not chosen(name, *(node.name for node in weight.consumers())):
        return Change(name, skipped=Reason.LEFT_OUT)
    before, scale = array(weight), None
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
    return Change(name, format.name, before.nbytes, stored, _relative_error(before, restored))


def compute_in_float16(model: Model, chosen: Callable[..., bool]) -> list[Change]:
    """Convert arithmetic and weights of all chosen nodes to float16, in place.

    Inputs and outputs of the graph stay float32.

    Args:
        model: the model; its graph is replaced.
        chosen: called with the name of a node.

    Returns:
        One change, for the whole graph.
    """
    left = [node.name for node in model.graph if not chosen(node.name) or _overflows(node)]
    if len(left) == len(model.graph):
        return [Change("graph", skipped=Reason.LEFT_OUT.because("or its weights are beyond float16"))]
    if any(value.is_initializer() for value in model.graph.outputs):
        return [Change("graph", skipped=Reason.OUTPUT)]
    before = model.weight_bytes
    with warnings.catch_warnings():  # the converter warns of values so small that they become zero
        warnings.simplefilter("ignore", UserWarning)
        converted = convert_float_to_float16(ir.to_proto(model.ir), keep_io_types=True, node_block_list=left)
    model.ir = TopologicalSortPass()(ir.from_proto(converted)).model
    return [Change("graph", "computes in float16", before, model.weight_bytes)]


def _overflows(node: ir.Node) -> bool:
    """Tell whether a node reads float32 weights beyond the range of float16."""
    return any(
        value is not None
        and is_float_weight(value, rank=0)
        and bool((np.abs(array(value)) > np.finfo(np.float16).max).any())
        for value in node.inputs
    )


def _relative_error(before: np.ndarray, after: np.ndarray) -> float:
    norm = float(np.linalg.norm(before))
    return float(np.linalg.norm(before - after)) / norm if norm else 0.0
