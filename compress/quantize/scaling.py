"""Moving channel scales from one layer into another without changing what the graph computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from compress.graph import edit, facts
from compress.graph.edit import add_initializer
from compress.graph.layers import Layer, array
from compress.graph.linear import Array, in_type, store


@dataclass(frozen=True, slots=True)
class Source:
    """The operator in which the channels of a value can be scaled.

    Attributes:
        node: a layer, a normalization, or a multiplication by a constant.
        layer: the layer, if it is one.
        constants: constants between the node and the value that are scaled too: node, input, broadcast shape.
        values: all values from the node's output to the value; their channels are scaled too.
    """

    node: ir.Node
    layer: Layer | None
    constants: tuple[tuple[ir.Node, int, tuple[int, ...]], ...]
    values: tuple[ir.Value, ...]

    def divide(self, graph: ir.Graph, scales: Array) -> None:
        """Divide the channels of the value by `scales` [channels]; scaled values get new names."""
        if self.layer is not None:
            content = self.layer.array
            store(self.layer.weight, content / along(scales, self.layer.out_axis, content.ndim))
        for node, place, view in self.constants:
            _divide_constant(node, place, scales.reshape(view))
        for value in self.values:
            rename(value)


def rename(value: ir.Value) -> None:
    """Rename a value that was scaled, so that no later step compares it with the original's."""
    value.name = f"{value.name}.scaled"


def multiply(layer: Layer, scales: Array) -> None:
    """Multiply a weight by `scales`, one for each input channel, so that it takes inputs divided by them."""
    store(layer.weight, layer.array * along(scales, input_axis(layer), layer.array.ndim))


def input_axis(layer: Layer) -> int:
    """Return the axis of a weight that its input channels run along."""
    return layer.out_axis if is_depthwise(layer) or layer.in_axis is None else layer.in_axis


def along(scales: Array, axis: int, rank: int) -> Array:
    """Return scales in a shape of `rank` that broadcasts along `axis`."""
    return scales.reshape([-1 if each == axis else 1 for each in range(rank)])


def is_depthwise(layer: Layer) -> bool:
    """Tell whether each channel of a convolution is filtered on its own."""
    groups = layer.node.attributes.get_int("group", 1)
    return layer.node.op_type == "Conv" and groups == len(layer.array) and layer.array.shape[1] == 1 < groups


def takes_scales(layer: Layer) -> bool:
    """Tell whether a layer's input channels can be scaled in its weight: no groups, or one a channel."""
    return layer.node.attributes.get_int("group", 1) == 1 or is_depthwise(layer)


def source(readers: Sequence[Layer], layers: Mapping[ir.Node, Layer]) -> Source | None:
    """Return the operator in which the channels of the value that `readers` read can be scaled, if any.

    Args:
        readers: linear layers or convolutions that read one value. No other node may read that value, or
            a value between it and its source.
        layers: the layers with a weight of their own, by node.
    """
    value, taken = readers[0].node.inputs[0], {reader.node for reader in readers}
    adders: list[tuple[ir.Node, int]] = []
    values: list[ir.Value] = []
    kinds = {readers[0].node.op_type == "Conv"}
    rank = readers[0].array.ndim - 2
    while value is not None and not value.is_graph_output() and set(value.consumers()) <= taken:
        values.append(value)
        node = value.producer()
        if node is None or any(each.uses() for each in node.outputs[1:]) or node.domain != "":
            return None
        if node in layers:
            return _layer_source(layers[node], adders, values, kinds)
        place, operator = _constant_place(node), facts.of(node)
        if operator.name == "Mul" or operator.scale is not None:
            return _scaling_source(node, adders, values, kinds, rank)
        if place is not None:
            adders.append((node, place))
        elif node.op_type == "Flatten" and _is_vector(node.inputs[0]):
            kinds = {True}
        elif not operator.homogeneous:
            return None
        elif operator.cost == "pool":
            kinds.add(True)
        elif not operator.elementwise or (operator.operands != 1 and not _is_prelu(node)):
            return None
        value, taken = node.inputs[0 if place is None else 1 - place], {node}
    return None


def _layer_source(
    layer: Layer, adders: list[tuple[ir.Node, int]], values: list[ir.Value], kinds: set[bool]
) -> Source | None:
    node = layer.node
    images = node.op_type == "Conv"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    # The channels must be on the same axis in both; pooling acts on the other axes.
    if kinds != {images} or (bias is not None and bias.const_value is None):
        return None
    view = (-1, *[1] * (layer.array.ndim - 2)) if images else (-1,)
    constants = [(adder, place, view) for adder, place in adders]
    if bias is not None:
        constants.append((node, 2, (-1,)))
    return Source(node, layer, tuple(constants), tuple(values))


def _scaling_source(
    node: ir.Node, adders: list[tuple[ir.Node, int]], values: list[ir.Value], kinds: set[bool], rank: int
) -> Source | None:
    """Return a normalization, or a Mul by a constant, as the source."""
    images = True in kinds
    view = (-1, *[1] * rank) if images else (-1,)
    places = [place for place, each in enumerate(node.inputs[:3]) if each and each.const_value is not None]
    match node.op_type, facts.of(node).channel_axis:
        case "Mul", _:
            fits = len(places) == 1
        case "BatchNormalization", _:
            fits = images and places == [1, 2]
        case _, -1:
            shapes = [array(each).ndim for each in node.inputs[1:3] if each and each.const_value is not None]
            fits = not images and len(places) == len(node.inputs) - 1 and max(shapes) == 1
        case _:
            fits = False
    # After a Flatten of images the rank before it is unknown.
    if not fits or len(kinds) > 1 or (images and rank == 0):
        return None
    shape = view if node.op_type == "Mul" else (-1,)
    constants = [(adder, place, view) for adder, place in adders] + [(node, place, shape) for place in places]
    return Source(node, None, tuple(constants), tuple(values))


def _constant_place(node: ir.Node) -> int | None:
    """Return which input of an addition is the constant."""
    if node.op_type != "Add":
        return None
    constant = (place for place, each in enumerate(node.inputs) if each and each.const_value is not None)
    return next(constant, None)


def _is_prelu(node: ir.Node) -> bool:
    """Tell whether a node multiplies what is negative by constant slopes."""
    slope = node.inputs[1] if node.op_type == "PRelu" else None
    return slope is not None and slope.const_value is not None


def _is_vector(value: ir.Value | None) -> bool:
    """Tell whether each channel of a value is known to be a single number."""
    if value is None:
        return False
    producer = value.producer()
    if producer is not None and producer.op_type in ("GlobalAveragePool", "GlobalMaxPool"):
        return True
    return value.shape is not None and all(size == 1 for size in value.shape[2:])


def _divide_constant(node: ir.Node, place: int, scales: Array) -> None:
    value = node.inputs[place]
    assert value is not None
    content = in_type(array(value) / scales, value.dtype)
    edit.set_input(node, place, add_initializer(edit.graph_of(value), f"{value.name}.scaled", content))
