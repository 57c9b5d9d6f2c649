"""Pooling, resizing, and channels that become pixels."""

from __future__ import annotations

import onnx_ir as ir

from compress.prune.axes import Axis, equate_products
from compress.prune.trace import Dims, Trace, pin_space, rule


@rule("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
def _pool(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    pin_space(dims[2:])
    space = trace.fresh(node.outputs[0], "it is a spatial dimension")[2:]
    return [(*dims[:2], *space)] * len(node.outputs)


@rule("Pad", "Resize", "Upsample")
def _resize(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    if node.op_type == "Pad" and trace.integers(node, 1, "pads") is None:
        return None
    result = trace.fresh(node.outputs[0], f"{node.op_type} changes its size")
    for before, after in zip(dims, result, strict=True):
        if before.size != after.size:
            before.pin(f"{node.op_type} changes its size")
    same = tuple(b if b.size == a.size else a for b, a in zip(dims, result, strict=True))
    if node.op_type == "Resize" and len(node.inputs) > 3:
        if "axes" in node.attributes:
            return None
        trace.follow(node, 3, same)
    return [same]


@rule("DepthToSpace")
def _depth_to_space(node: ir.Node, trace: Trace) -> list[Dims] | None:
    batch, channels, *space = trace.dims(node.inputs[0])
    pin_space((*space,))
    block = node.attributes.get_int("blocksize")
    blocks = [Axis(block, "it becomes a spatial dimension") for _ in range(2)]
    result = Axis(channels.size // block**2)
    rows_first = node.attributes.get_string("mode", "DCR") == "DCR"
    equate_products([channels], [*blocks, result] if rows_first else [result, *blocks])
    return [(batch, result, *trace.fresh(node.outputs[0], "it is a spatial dimension")[2:])]


@rule("SpaceToDepth")
def _space_to_depth(node: ir.Node, trace: Trace) -> list[Dims] | None:
    batch, channels, *space = trace.dims(node.inputs[0])
    pin_space((*space,))
    block = node.attributes.get_int("blocksize")
    result = trace.fresh(node.outputs[0], "it is a spatial dimension")
    depth = Axis(channels.size * block**2)
    equate_products([depth], [Axis(block**2, "it comes from a spatial dimension"), channels])
    return [(batch, depth, *result[2:])]
