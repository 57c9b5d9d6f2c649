"""Moving scales of channels from one layer into another without changing what the graph computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.graph.emit import initializer
from compress.graph.layers import Layer, array
from compress.graph.linear import Array, store

EQUIVARIANT = ("Identity", "LeakyRelu", "Relu")
"""Operators with ``f(s x) = s f(x)`` for positive scales s of the channels."""
POOLING = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")
"""The same, of the channels of images."""


@dataclass(frozen=True, slots=True)
class Source:
    """The layer that a value comes from, when its channels can be scaled there.

    Attributes:
        layer: the layer.
        adders: additions of a constant between layer and value, with the place of the constant.
        values: all values from the layer's output to the value, whose channels are scaled with it.
    """

    layer: Layer
    adders: tuple[tuple[ir.Node, int], ...]
    values: tuple[ir.Value, ...]

    @property
    def channels(self) -> int:
        """Output channels of the layer."""
        return int(self.layer.array.shape[self.layer.out_axis])

    def divide(self, graph: ir.Graph, scales: Array) -> None:
        """Divide the channels of the value by `scales` [channels]; what is scaled gets a new name."""
        layer, node = self.layer, self.layer.node
        store(layer.weight, layer.array / along(scales, layer.out_axis, layer.array.ndim))
        if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2 and node.inputs[2] is not None:
            _divide_constant(graph, node, 2, scales, (-1,))
        view = (-1, *[1] * (layer.array.ndim - 2)) if node.op_type == "Conv" else (-1,)
        for adder, place in self.adders:
            _divide_constant(graph, adder, place, scales, view)
        for value in self.values:
            rename(value)


def rename(value: ir.Value) -> None:
    """Give a value whose meaning changed another name, so that nothing takes it for the original's."""
    value.name = f"{value.name}.scaled"


def multiply(layer: Layer, scales: Array) -> None:
    """Multiply a weight so that it takes inputs that were divided by `scales`, one for each channel."""
    store(layer.weight, layer.array * along(scales, input_axis(layer), layer.array.ndim))


def input_axis(layer: Layer) -> int:
    """Return the axis of a weight that its input channels run along."""
    return layer.out_axis if is_depthwise(layer) or layer.in_axis is None else layer.in_axis


def along(scales: Array, axis: int, rank: int) -> Array:
    """Return scales in a shape that broadcasts along one axis."""
    return scales.reshape([-1 if each == axis else 1 for each in range(rank)])


def is_depthwise(layer: Layer) -> bool:
    """Tell whether each channel of a convolution is filtered on its own."""
    groups = layer.node.attributes.get_int("group", 1)
    return layer.node.op_type == "Conv" and groups == len(layer.array) and layer.array.shape[1] == 1 < groups


def takes_scales(layer: Layer) -> bool:
    """Tell whether a layer's input channels can be scaled in its weight: no groups, or one a channel."""
    return layer.node.attributes.get_int("group", 1) == 1 or is_depthwise(layer)


def source(reader: Layer, layers: Mapping[ir.Node, Layer]) -> Source | None:
    """Return the layer that alone makes what `reader` reads, if its channels can be scaled.

    Args:
        reader: a layer; nothing else may read its input, or a value between it and its source.
        layers: the layers with a weight of their own, by node.
    """
    value = reader.node.inputs[0]
    adders: list[tuple[ir.Node, int]] = []
    values: list[ir.Value] = []
    kinds = {reader.node.op_type == "Conv"}
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        values.append(value)
        node = value.producer()
        if node is None or len(node.outputs) > 1 or node.domain != "":
            return None
        if node in layers:
            return _source(layers[node], adders, values, kinds)
        place = _constant_place(node)
        if place is not None:
            adders.append((node, place))
        elif node.op_type == "Flatten" and _is_vector(node.inputs[0]):
            kinds = {True}
        elif node.op_type in POOLING:
            kinds.add(True)
        elif node.op_type not in EQUIVARIANT:
            return None
        value = node.inputs[0 if place is None else 1 - place]
    return None


def _source(
    layer: Layer, adders: list[tuple[ir.Node, int]], values: list[ir.Value], kinds: set[bool]
) -> Source | None:
    node = layer.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    constant = bias is None or bias.const_value is not None
    # Channels lie on the same axis for both, and pooling runs over the others.
    fits = kinds == {node.op_type == "Conv"}
    return Source(layer, tuple(adders), tuple(values)) if constant and fits else None


def _constant_place(node: ir.Node) -> int | None:
    """Return which input of an addition is the constant."""
    if node.op_type != "Add":
        return None
    constant = (place for place, each in enumerate(node.inputs) if each and each.const_value is not None)
    return next(constant, None)


def _is_vector(value: ir.Value | None) -> bool:
    """Tell whether each channel of a value is known to be a single number."""
    if value is None:
        return False
    producer = value.producer()
    if producer is not None and producer.op_type in ("GlobalAveragePool", "GlobalMaxPool"):
        return True
    return value.shape is not None and all(size == 1 for size in value.shape[2:])


def _divide_constant(
    graph: ir.Graph, node: ir.Node, place: int, scales: Array, view: tuple[int, ...]
) -> None:
    value = node.inputs[place]
    assert value is not None
    content = array(value) / scales.reshape(view)
    node.replace_input_with(place, initializer(graph, f"{value.name}.scaled", content.astype(np.float32)))
    if not value.uses() and value.is_initializer():
        del graph.initializers[value.name or ""]
