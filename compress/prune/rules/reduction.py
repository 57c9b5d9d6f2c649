"""Operators that sum, normalize or count along an axis."""

from __future__ import annotations

import onnx_ir as ir

from compress.prune.axes import Axis
from compress.prune.trace import Dims, Trace, axis_of, rule


@rule("Softmax", "LogSoftmax", "Hardmax", "CumSum", "LpNormalization")
def _along_axis(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    given = trace.integers(node, 1) if node.op_type == "CumSum" else None
    if node.op_type == "CumSum" and given is None:
        return None
    flattens = trace.opset < 13 and node.op_type in ("Softmax", "LogSoftmax", "Hardmax")
    axis = given[0] if given else axis_of(node, len(dims), 1 if flattens else -1)
    for along in dims[axis:] if flattens else [dims[axis]]:
        along.pin(f"{node.op_type} runs along it")
    return [dims]


@rule(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
def _reduce(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    axes = trace.integers(node, 1, "axes")
    if axes is None and len(node.inputs) > 1:
        return None
    reduced = {axis % len(dims) for axis in axes} if axes else set(range(len(dims)))
    if axes is None and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
        return [dims]
    for axis in reduced:
        dims[axis].normalize()
        if node.op_type not in ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2"):
            dims[axis].pin(f"{node.op_type} runs along it")
    keeps = node.attributes.get_int("keepdims", 1) == 1
    return [
        tuple(Axis(1) if i in reduced else dim for i, dim in enumerate(dims) if keeps or i not in reduced)
    ]


@rule("ArgMax", "ArgMin")
def _arg(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    axis = axis_of(node, len(dims), 0)
    dims[axis].pin(f"{node.op_type} runs along it")
    kept = (Axis(1),) if node.attributes.get_int("keepdims", 1) else ()
    return [dims[:axis] + kept + dims[axis + 1 :]]
