"""Layers that sum over channels: products, convolutions, recurrent layers."""

from __future__ import annotations

import onnx_ir as ir

from compress.prune.axes import Axis, equate, equate_products
from compress.prune.trace import Dims, Trace, pin_space, rule


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
    pin_space((*space, *kernel))
    count = node.attributes.get_int("group", 1)
    group, made = Axis(count), Axis(outputs.size // count)
    equate_products([channels], [group, inner])
    equate_products([outputs], [group, made])
    return _convolved(node, trace, (batch, group, inner, made, outputs))


@rule("ConvTranspose")
def _conv_transpose(node: ir.Node, trace: Trace) -> list[Dims] | None:
    """Weight [inputs, outputs / groups, kernel...]."""
    (batch, channels, *space), (inputs, made, *kernel) = map(trace.dims, node.inputs[:2])
    pin_space((*space, *kernel))
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
