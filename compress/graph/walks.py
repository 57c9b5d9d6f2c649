"""Walks that several rooms take from a value: to its readers, to its product, to its codes."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from compress.graph import facts
from compress.graph.layers import Layer


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the node that alone reads a value; None if others or the caller of the graph see it too."""
    readers = value.consumers()
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def first_output(node: ir.Node) -> ir.Value | None:
    """Return the first output of a node that is not left out, such as the last state of a recurrent layer."""
    return next((value for value in node.outputs if value.name), None)


def after_activation(value: ir.Value) -> ir.Value:
    """Return the output of the Relu or Clip that alone reads `value`; else `value` itself."""
    reader = only_reader(value)
    return reader.outputs[0] if reader is not None and facts.of(reader).cuts else value


def before_activation(value: ir.Value) -> ir.Node | None:
    """Return the node that makes a value, or the one before it if that is a Relu or a Clip."""
    producer = value.producer()
    if producer is not None and facts.of(producer).cuts and producer.inputs[0] is not None:
        return producer.inputs[0].producer()
    return producer


def epilogue(value: ir.Value) -> list[ir.Value]:
    """Return a layer's output and what alone reads it in turn: BatchNormalization, bias, Relu, Clip."""
    values = [value]
    while (node := only_reader(value)) is not None:
        bias = node.op_type == "Add" and any(map(is_constant, node.inputs))
        if not (bias or node.op_type == "BatchNormalization" or facts.of(node).cuts):
            break
        value = node.outputs[0]
        values.append(value)
    return values


def product_behind(value: ir.Value) -> ir.Node | None:
    """Return the node that sums the products behind a value, through scaling, bias and activation."""
    node = value.producer()
    while node is not None and (facts.of(node).cuts or _rescales(facts.of(node))):
        computed = [each for each in node.inputs if each is not None and not is_constant(each)]
        node = computed[0].producer() if computed else None
    return node


def _rescales(operator: facts.Operator) -> bool:
    """Tell whether an operator scales and shifts elements, or changes only their type."""
    return operator.name == "Cast" or (operator.elementwise and operator.linear)


def codes_behind(value: ir.Value | None) -> ir.Value | None:
    """Return the initializer of integers that a weight or bias is decoded from; None if it has floats."""
    while value is not None and value.const_value is None:
        producer = value.producer()
        if producer is None or not (facts.of(producer).rearranges or _rescales(facts.of(producer))):
            return None
        value = producer.inputs[0]
    if value is None or value.dtype is None or not value.dtype.is_integer():
        return None
    return value


def bias_place(output: ir.Value, layer: Layer, *, free: bool = False) -> tuple[ir.Node, int] | None:
    """Return which node adds the bias of a layer, and at which input; None if nothing does.

    It is the operator's own bias, or the constant of an Add right behind it, with one number for each channel
    in any shape that broadcasts so: [N] or [1, N] behind a matrix product, [C, 1, 1] behind a convolution.

    Args:
        output: the layer's output, in the layer's graph or in a variant whose weight is stored otherwise.
        layer: the layer; its weight tells the number of channels.
        free: whether to return the operator's input for a bias also if nothing is there yet.
    """
    node = output.producer()
    if node is None:
        return None
    width = layer.array.shape[layer.out_axis]
    own = facts.of(node).bias if facts.of(node).contracts else None
    given = node.inputs[own] if own is not None and own < len(node.inputs) else None
    if own is not None and given is not None and _stored_size(given) == width:
        return node, own
    adder = node if node.op_type == "Add" else only_reader(output)
    if adder is not None and adder.op_type == "Add":
        place = 1 if layer.operator.channel_axis == -1 else layer.array.ndim - 1
        for index, value in enumerate(adder.inputs):
            shape = () if value is None or value.const_value is None else value.const_value.shape.numpy()
            if len(shape) >= place and shape[-place] == width == math.prod(shape):
                return adder, index
    return (node, own) if free and own is not None and given is None else None


def _stored_size(value: ir.Value) -> int | None:
    """Return how many numbers a constant has, as it is or behind a DequantizeLinear; None if it is none."""
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        value = producer.inputs[0] or value
    return None if value.const_value is None else value.const_value.size


def is_constant(value: ir.Value | None) -> bool:
    """Tell whether a value is an initializer."""
    return value is not None and value.const_value is not None


def depths(graph: ir.Graph, counts: Callable[[ir.Node, int], bool]) -> dict[ir.Node, int]:
    """Return how many nodes that count stand before each of them on the longest way to it.

    Args:
        graph: the graph.
        counts: called with a node and the number before it.
    """
    found: dict[ir.Node, int] = {}
    behind: dict[ir.Value, int] = {}
    for node in graph:
        deepest = max((behind.get(value, 0) for value in node.inputs if value is not None), default=0)
        if counts(node, deepest):
            found[node] = deepest
            deepest += 1
        behind.update(dict.fromkeys(node.outputs, deepest))
    return found
