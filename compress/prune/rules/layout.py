"""Operators that only move elements: they reshape, concatenate and split."""

from __future__ import annotations

import onnx_ir as ir

from compress.prune.axes import Axis, concatenation, equate, equate_products, equate_sums
from compress.prune.trace import Dims, Trace, axis_of, rule


@rule("Reshape", "Flatten")
def _reshape(node: ir.Node, trace: Trace) -> list[Dims] | None:
    result = trace.fresh(node.outputs[0])
    equate_products(trace.dims(node.inputs[0]), result)
    if node.op_type == "Reshape":
        trace.follow(node, 1, result)
    return [result]


@rule("Transpose")
def _transpose(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    order = node.attributes.get_ints("perm", tuple(range(len(dims)))[::-1])
    return [tuple(dims[i] for i in order)]


@rule("Squeeze")
def _squeeze(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    axes = trace.integers(node, 1, "axes")
    if axes is None and len(node.inputs) > 1:
        return None
    gone = {axis % len(dims) for axis in axes} if axes else {i for i, dim in enumerate(dims) if dim.size == 1}
    return [tuple(dim for i, dim in enumerate(dims) if i not in gone)]


@rule("Unsqueeze")
def _unsqueeze(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    axes = trace.integers(node, 1, "axes")
    if axes is None:
        return None
    rank = len(dims) + len(axes)
    rest, new = iter(dims), {axis % rank for axis in axes}
    return [tuple(Axis(1) if i in new else next(rest) for i in range(rank))]


@rule("Expand")
def _expand(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims, result = trace.dims(node.inputs[0]), trace.fresh(node.outputs[0])
    shape = trace.elements(node, 1)
    wide = trace.broadcast([result, dims])
    trace.follow(node, 1, wide[len(wide) - len(shape) :], stretches=True)
    return [wide]


@rule("ConstantOfShape")
def _constant_of_shape(node: ir.Node, trace: Trace) -> list[Dims] | None:
    result = trace.fresh(node.outputs[0])
    trace.follow(node, 0, result)
    return [result]


@rule("Shape")
def _shape(node: ir.Node, trace: Trace) -> list[Dims] | None:
    return [trace.fresh(node.outputs[0], "it is the length of a shape")]


@rule("Range")
def _range(node: ir.Node, trace: Trace) -> list[Dims] | None:
    return [trace.fresh(node.outputs[0], "it is a range of numbers")]


@rule("Tile")
def _tile(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims, result = trace.dims(node.inputs[0]), trace.fresh(node.outputs[0], "Tile repeats it")
    for before, after in zip(dims, result, strict=True):
        if before.size not in (1, after.size):
            before.pin("Tile repeats it")
    return [tuple(b if b.size == a.size else a for b, a in zip(dims, result, strict=True))]


@rule("Concat")
def _concat(node: ir.Node, trace: Trace) -> list[Dims] | None:
    operands = [trace.dims(value) for value in node.inputs]
    axis = axis_of(node, len(operands[0]), 0)
    for dims in operands[1:]:
        for i, dim in enumerate(dims):
            if i != axis:
                equate(operands[0][i], dim)
    joined = concatenation([dims[axis] for dims in operands])
    return [(*operands[0][:axis], joined, *operands[0][axis + 1 :])]


@rule("Split")
def _split(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    axis = axis_of(node, len(dims), 0)
    parts = [Axis((trace.size(value) or ())[axis]) for value in node.outputs]
    equate_sums([dims[axis]], parts)
    for element, part in enumerate(parts):
        trace.rewrite(node, 1 if trace.opset >= 13 else "split", element, (part,))
    return [(*dims[:axis], part, *dims[axis + 1 :]) for part in parts]


@rule("Slice")
def _slice(node: ir.Node, trace: Trace) -> list[Dims] | None:
    """A constant range with step 1 splits the axis into parts; any other range pins it."""
    dims = trace.dims(node.inputs[0])
    starts, steps = trace.integers(node, 1), trace.integers(node, 4)
    axes = trace.integers(node, 3) or (list(range(len(starts))) if starts and len(node.inputs) < 4 else None)
    if axes is None:
        return None
    result = list(dims)
    sizes = trace.size(node.outputs[0]) or ()
    for element, axis in enumerate(axis % len(dims) for axis in axes):
        if sizes[axis] == dims[axis].size and (steps is None or steps[element] > 0):
            continue
        middle = Axis(sizes[axis])
        if dims[axis].is_pinned:
            result[axis] = Axis(sizes[axis], "it is part of a dimension that stays")
            continue
        fixed = starts is not None and trace.integers(node, 2) is not None
        if not fixed or (steps is not None and steps[element] != 1):
            dims[axis].pin("a Slice with computed bounds, or with steps, reads it")
            middle.pin("it is part of another dimension")
        else:
            start = starts[element] % dims[axis].size if starts else 0
            before, after = Axis(start), Axis(dims[axis].size - start - middle.size)
            equate_sums([dims[axis]], [before, middle, after])
            trace.rewrite(node, 1, element, (before,))
            trace.rewrite(node, 2, element, (before, middle))
        result[axis] = middle
    return [tuple(result)]


@rule("Gather")
def _gather(node: ir.Node, trace: Trace) -> list[Dims] | None:
    data, indices = map(trace.dims, node.inputs)
    axis = axis_of(node, len(data), 0)
    data[axis].pin("Gather selects from it")
    if trace.is_constant(node.inputs[0]):
        trace.produced += [(dim, node) for dim in data[axis + 1 :]]
    return [data[:axis] + indices + data[axis + 1 :]]


@rule("Trilu")
def _trilu(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    for axis in dims[-2:]:
        axis.pin("Trilu masks it by position")
    return [dims]
