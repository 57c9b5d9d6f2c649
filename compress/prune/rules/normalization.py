"""Normalizations with scales of their own."""

from __future__ import annotations

import onnx_ir as ir

from compress.prune.axes import Axis, equate, equate_products
from compress.prune.trace import Dims, Trace, axis_of, pin_space, rule


@rule("BatchNormalization", "InstanceNormalization")
def _per_channel(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    for value in node.inputs[1:]:
        equate(dims[1], trace.dims(value)[0])
    if node.op_type == "InstanceNormalization":
        pin_space(dims[2:])
    return [dims, *((dims[1],) for _ in node.outputs[1:])]


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_norm(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    axis = axis_of(node, len(dims), -1)
    trace.broadcast([trace.dims(value) for value in node.inputs if value is not None])
    for normalized in dims[axis:]:
        normalized.normalize()
    statistics = (*dims[:axis], *(Axis(1) for _ in dims[axis:]))
    return [dims, *(statistics for _ in node.outputs[1:])]


@rule("GroupNormalization")
def _group_norm(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    group = Axis(node.attributes.get_int("num_groups"))
    inner = Axis(dims[1].size // group.size)
    equate_products([dims[1]], [group, inner])
    inner.normalize()
    pin_space(dims[2:])
    for value in node.inputs[1:]:
        (axis,) = trace.dims(value)
        equate(axis, dims[1] if axis.size == dims[1].size else group)
    trace.attributes.append((node, "num_groups", group))
    return [dims]
