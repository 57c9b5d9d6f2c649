"""How each operator relates the axes of its inputs and outputs: one small function an operator, in a table.

A rule states, through a `Trace`, which axes are equal, which a layer's weights produce and which it
sums over, and returns the axes of the node's outputs. It returns None for a variant it does not
know; then every axis the node touches is pinned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import onnx_ir as ir

from compress.prune.axes import Axis, concatenation, equate, equate_products, equate_sums
from compress.prune.trace import Dims, Trace

Rule: TypeAlias = Callable[[ir.Node, Trace], list[Dims] | None]

RULES: dict[str, Rule] = {}
"""Operators of the default ONNX domain."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Enter a function in the table."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return enter


def _spatial(dims: Dims) -> None:
    for axis in dims:
        axis.pin("it is a spatial dimension")


def _axis(node: ir.Node, rank: int, default: int) -> int:
    axis = node.attributes.get_int("axis", default)
    return axis + rank if axis < 0 else axis


# Elementwise


@rule(
    *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow"),
    *("Sub", "Sum", "Where", "Xor"),
)
def _broadcast(node: ir.Node, trace: Trace) -> list[Dims] | None:
    return [trace.broadcast([trace.dims(value) for value in node.inputs if value is not None])]


@rule(
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil"),
    *("Celu", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu"),
    *("Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt"),
    *("Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
def _same(node: ir.Node, trace: Trace) -> list[Dims] | None:
    return [trace.dims(node.inputs[0])] * len(node.outputs)


@rule("Softmax", "LogSoftmax", "Hardmax", "CumSum", "LpNormalization")
def _along_axis(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    given = trace.integers(node, 1) if node.op_type == "CumSum" else None
    if node.op_type == "CumSum" and given is None:
        return None
    dims[given[0] if given else _axis(node, len(dims), -1)].pin(f"{node.op_type} runs along it")
    return [dims]


# Linear layers


@rule("MatMul")
def _matmul(node: ir.Node, trace: Trace) -> list[Dims] | None:
    left, right = (trace.dims(value) for value in node.inputs)
    inner_right = right[-2] if len(right) > 1 else right[-1]
    equate(left[-1], inner_right)
    trace.consumed.append((left[-1], node))
    batch = [dims[:-2] for dims in (left, right) if len(dims) > 2]
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    for weight, axes in zip(node.inputs, (rows, columns), strict=True):
        if trace.is_constant(weight):
            trace.produced += [(axis, node) for axis in axes]
    return [(trace.broadcast(batch) if batch else ()) + rows + columns]


@rule("Gemm")
def _gemm(node: ir.Node, trace: Trace) -> list[Dims] | None:
    left, right = (trace.dims(value) for value in node.inputs[:2])
    rows, inner_left = left[::-1] if node.attributes.get_int("transA", 0) else left
    inner_right, columns = right[::-1] if node.attributes.get_int("transB", 0) else right
    equate(inner_left, inner_right)
    trace.consumed.append((inner_left, node))
    if trace.is_constant(node.inputs[1]):
        trace.produced.append((columns, node))
    result = (rows, columns)
    if len(node.inputs) > 2:
        trace.broadcast([result, trace.dims(node.inputs[2])])
    return [result]


@rule("Einsum")
def _einsum(node: ir.Node, trace: Trace) -> list[Dims] | None:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    if "->" not in equation or "." in equation:
        return None
    terms, result = equation.split("->")
    axes: dict[str, Axis] = {}
    for term, value in zip(terms.split(","), node.inputs, strict=True):
        if len(set(term)) < len(term):
            return None
        for letter, axis in zip(term, trace.dims(value), strict=True):
            equate(axes.setdefault(letter, axis), axis)
    trace.consumed += [(axis, node) for letter, axis in axes.items() if letter not in result]
    for term, value in zip(terms.split(","), node.inputs, strict=True):
        if trace.is_constant(value):
            others = "".join(terms.split(",")).replace(term, "", 1)
            trace.produced += [(axes[letter], node) for letter in term if letter in set(result) - set(others)]
    return [tuple(axes[letter] for letter in result)]


@rule("Conv")
def _conv(node: ir.Node, trace: Trace) -> list[Dims] | None:
    """Weight [outputs, inputs / groups, kernel...]; both channel axes are groups x channels in a group."""
    (batch, channels, *space), (outputs, inner, *kernel) = map(trace.dims, node.inputs[:2])
    _spatial((*space, *kernel))
    count = node.attributes.get_int("group", 1)
    group, made = Axis(count), Axis(outputs.size // count)
    equate_products([channels], [group, inner])
    equate_products([outputs], [group, made])
    return _convolved(node, trace, (batch, group, inner, made, outputs))


@rule("ConvTranspose")
def _conv_transpose(node: ir.Node, trace: Trace) -> list[Dims] | None:
    """Weight [inputs, outputs / groups, kernel...]."""
    (batch, channels, *space), (inputs, made, *kernel) = map(trace.dims, node.inputs[:2])
    _spatial((*space, *kernel))
    count = node.attributes.get_int("group", 1)
    group, inner, outputs = Axis(count), Axis(inputs.size // count), Axis(count * made.size)
    equate(channels, inputs)
    equate_products([inputs], [group, inner])
    equate_products([outputs], [group, made])
    return _convolved(node, trace, (batch, group, inner, made, outputs))


def _convolved(node: ir.Node, trace: Trace, axes: Dims) -> list[Dims]:
    batch, group, inner, made, outputs = axes
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        equate(outputs, trace.dims(node.inputs[2])[0])
    trace.consumed.append((inner, node))
    if trace.is_constant(node.inputs[1]):
        trace.produced.append((made if group.size > 1 else outputs, node))
    if group.size > 1:
        trace.attributes.append((node, "group", group))
    return [(batch, outputs, *trace.fresh(node.outputs[0], "it is a spatial dimension")[2:])]


@rule("LSTM", "GRU", "RNN")
def _recurrent(node: ir.Node, trace: Trace) -> list[Dims] | None:
    """X [steps, batch, inputs], W [directions, gates x hidden, inputs], R [..., gates x hidden, hidden]."""
    if node.attributes.get_int("layout", 0):
        return None
    steps, batch, inputs = trace.dims(node.inputs[0])
    (directions, rows, columns), (also, gated, hidden) = map(trace.dims, node.inputs[1:3])
    bias, lengths, first, cell, peephole = (
        trace.dims(node.inputs[i] if i < len(node.inputs) else None) for i in range(3, 8)
    )
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op_type]
    for axis in (directions, also, *bias[:1], *lengths, *first[:1], *cell[:1], *peephole[:1]):
        axis.pin("it counts directions or sequences")
    equate(inputs, columns)
    for axis, count in ((rows, gates), (gated, gates), *((axis, 2 * gates) for axis in bias[1:])):
        equate_products([axis], [Axis(count, "it counts gates"), hidden])
    for axis in peephole[1:]:
        equate_products([axis], [Axis(3, "it counts gates"), hidden])
    for state in (first, cell):
        for axis in state[2:]:
            equate(axis, hidden)
    trace.consumed.append((inputs, node))
    trace.produced.append((hidden, node))
    trace.attributes.append((node, "hidden_size", hidden))
    last = (directions, batch, hidden)
    return [(steps, directions, batch, hidden), last, last][: len(node.outputs)]


# Normalization


@rule("BatchNormalization", "InstanceNormalization")
def _per_channel(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    for value in node.inputs[1:]:
        equate(dims[1], trace.dims(value)[0])
    if node.op_type == "InstanceNormalization":
        _spatial(dims[2:])
    return [dims, *((dims[1],) for _ in node.outputs[1:])]


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_norm(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    axis = _axis(node, len(dims), -1)
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
    _spatial(dims[2:])
    for value in node.inputs[1:]:
        (axis,) = trace.dims(value)
        equate(axis, dims[1] if axis.size == dims[1].size else group)
    trace.attributes.append((node, "num_groups", group))
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
    axis = _axis(node, len(dims), 0)
    dims[axis].pin(f"{node.op_type} runs along it")
    kept = (Axis(1),) if node.attributes.get_int("keepdims", 1) else ()
    return [dims[:axis] + kept + dims[axis + 1 :]]


# Pooling and images


@rule("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
def _pool(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    _spatial(dims[2:])
    space = trace.fresh(node.outputs[0], "it is a spatial dimension")[2:]
    return [(*dims[:2], *space)] * len(node.outputs)


@rule("Pad", "Resize", "Upsample")
def _resize(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    if node.op_type == "Pad" and trace.integers(node, 1) is None:
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
    _spatial((*space,))
    block = node.attributes.get_int("blocksize")
    blocks = [Axis(block, "it becomes a spatial dimension") for _ in range(2)]
    result = Axis(channels.size // block**2)
    rows_first = node.attributes.get_string("mode", "DCR") == "DCR"
    equate_products([channels], [*blocks, result] if rows_first else [result, *blocks])
    return [(batch, result, *trace.fresh(node.outputs[0], "it is a spatial dimension")[2:])]


@rule("SpaceToDepth")
def _space_to_depth(node: ir.Node, trace: Trace) -> list[Dims] | None:
    batch, channels, *space = trace.dims(node.inputs[0])
    _spatial((*space,))
    block = node.attributes.get_int("blocksize")
    result = trace.fresh(node.outputs[0], "it is a spatial dimension")
    depth = Axis(channels.size * block**2)
    equate_products([depth], [Axis(block**2, "it comes from a spatial dimension"), channels])
    return [(batch, depth, *result[2:])]


# Shapes


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
    trace.follow(node, 1, wide[len(wide) - len(shape) :])
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
    dims, result = trace.dims(node.inputs[0]), trace.fresh(node.outputs[0], "Tile makes it")
    for before, after in zip(dims, result, strict=True):
        if before.size not in (1, after.size):
            before.pin("Tile repeats it")
    return [tuple(b if b.size == a.size else a for b, a in zip(dims, result, strict=True))]


# Joining and taking apart


@rule("Concat")
def _concat(node: ir.Node, trace: Trace) -> list[Dims] | None:
    operands = [trace.dims(value) for value in node.inputs]
    axis = _axis(node, len(operands[0]), 0)
    for dims in operands[1:]:
        for i, dim in enumerate(dims):
            if i != axis:
                equate(operands[0][i], dim)
    joined = concatenation([dims[axis] for dims in operands])
    return [(*operands[0][:axis], joined, *operands[0][axis + 1 :])]


@rule("Split")
def _split(node: ir.Node, trace: Trace) -> list[Dims] | None:
    if "split" in node.attributes:
        return None
    dims = trace.dims(node.inputs[0])
    axis = _axis(node, len(dims), 0)
    parts = [Axis((trace.size(value) or ())[axis]) for value in node.outputs]
    equate_sums([dims[axis]], parts)
    for element, part in enumerate(parts):
        trace.rewrite(node, 1, element, (part,))
    return [(*dims[:axis], part, *dims[axis + 1 :]) for part in parts]


@rule("Slice")
def _slice(node: ir.Node, trace: Trace) -> list[Dims] | None:
    """A constant range with step 1 takes the axis apart; any other range pins it."""
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
        fixed = starts is not None and trace.integers(node, 2) is not None
        if not fixed or (steps is not None and steps[element] != 1):
            dims[axis].pin("a Slice that is not constant takes part of it")
            middle.pin("it is a part of another dimension")
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
    axis = _axis(node, len(data), 0)
    data[axis].pin("Gather picks from it")
    if trace.is_constant(node.inputs[0]):
        trace.produced += [(dim, node) for dim in data[axis + 1 :]]
    return [data[:axis] + indices + data[axis + 1 :]]


@rule("Trilu")
def _trilu(node: ir.Node, trace: Trace) -> list[Dims] | None:
    dims = trace.dims(node.inputs[0])
    for axis in dims[-2:]:
        axis.pin("Trilu masks by its position")
    return [dims]
