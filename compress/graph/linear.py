"""Convolutions, matrix products and recurrent layers as one thing: rows of inputs times a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from compress.graph import edit
from compress.graph.layers import Layer, StoredTensor, layers

Array: TypeAlias = npt.NDArray[np.floating]
Indices: TypeAlias = npt.NDArray[np.int64]

SAMPLE = 1 << 22
"""Most numbers that are read from one batch of a layer's inputs; rows are drawn at random."""


def linear_layers(graph: ir.Graph) -> Iterator[Layer]:
    """Yield every Conv, Gemm and MatMul that is a plain product with a finite weight of its own."""
    for layer in layers(graph):
        node = layer.node
        scaled = any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
        padded = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        turned = node.attributes.get_int("transA", 0) != 0
        plain = is_linear(layer) and not (scaled or padded or turned)
        if plain and layer.index == 1 and len(layer.weight.uses()) == 1 and layer.is_finite:
            yield layer


def is_linear(layer: Layer) -> bool:
    """Tell whether a layer is a matrix product or a plain convolution."""
    return layer.operator.cost in ("convolution", "product")


def recurrent_layers(graph: ir.Graph) -> Iterator[Layer]:
    """Yield the finite input and hidden weights of every recurrent node whose hidden states can be read."""
    for layer in layers(graph):
        node = layer.node
        shared = len(layer.weight.uses()) > 1 or node.attributes.get_int("layout", 0) != 0
        if layer.operator.is_recurrent and source(layer) and not shared and layer.is_finite:
            yield layer


def source(layer: Layer) -> str:
    """Return the name of the value that a layer reads; a hidden weight reads its node's own states."""
    value = layer.node.outputs[0] if _reads_states(layer) else layer.node.inputs[0]
    return "" if value is None else value.name or ""


def _reads_states(layer: Layer) -> bool:
    return layer.operator.is_recurrent and layer.index == 2


def channel_axis(layer: Layer) -> int:
    """Return the dimension of a layer's input and output that holds the channels."""
    return 1 if layer.node.op_type == "Conv" else -1


def groups(layer: Layer) -> int:
    """Return how many matrices a weight is: groups of a convolution, directions of hidden weights."""
    if layer.operator.is_recurrent:
        return int(layer.array.shape[0]) if _reads_states(layer) else 1
    return layer.node.attributes.get_int("group", 1)


def matrix(layer: Layer, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a weight as [groups, features, outputs]; features are kernel positions times channels."""
    if layer.operator.is_recurrent:
        rows = weight.reshape(-1, weight.shape[-1])
    else:
        rows = np.moveaxis(weight if layer.out_axis == 0 else weight.T, 1, -1)
    return rows.reshape(groups(layer), len(rows) // groups(layer), -1).transpose(0, 2, 1)


def in_layout(layer: Layer, content: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return [groups, features, outputs] in the layout of the layer's weight.

    The axis of features may be shorter, with one entry for each block of them.
    """
    rows = content.transpose(0, 2, 1)
    if layer.operator.is_recurrent:
        return np.array(rows.reshape(*layer.array.shape[:2], -1), order="C")
    outputs, _, *kernel = np.moveaxis(layer.array, layer.out_axis, 0).shape
    rows = np.moveaxis(rows.reshape(outputs, *kernel, -1), -1, 1)
    return np.array(rows if layer.out_axis == 0 else rows.T, order="C")


def from_matrix(layer: Layer, content: Array) -> Array:
    """Return what `matrix` returned in the layout of the layer's weight."""
    return in_layout(layer, content).astype(np.float32, copy=False)


def store(value: ir.Value, content: Array) -> None:
    """Replace an initializer's content; its type stays, and the type that it is stored in."""
    edit.set_initializer(value, stored_like(value, content))


def stored_like(value: ir.Value, content: Array) -> ir.TensorProtocol:
    """Return numbers as a tensor of an initializer's type, stored in the type that it is stored in."""
    tensor = value.const_value
    if isinstance(tensor, StoredTensor):
        return StoredTensor(ir.tensor(in_type(content, tensor.stored.dtype), name=value.name), tensor.dtype)
    return ir.tensor(in_type(content, value.dtype), name=value.name)


def holds(value: ir.Value, content: Array) -> bool:
    """Tell whether an initializer can take numbers on in the type that it is stored in."""
    tensor = value.const_value
    stored = tensor.stored.dtype if isinstance(tensor, StoredTensor) else value.dtype
    return stored is None or in_range(content, stored)


def in_range(content: Array, dtype: ir.DataType) -> bool:
    """Tell whether a float type holds numbers: none is beyond its largest, not all below its least."""
    peak = float(np.abs(content).max(initial=0))
    return peak <= float(dtype.max) and (peak == 0 or peak >= float(dtype.tiny))


def in_type(content: Array, wanted: ir.DataType | None) -> Array:
    """Return numbers in an element type, float32 if None; those beyond its range become its largest."""
    if wanted is None or wanted == ir.DataType.FLOAT:
        return content.astype(np.float32, copy=False)
    largest = float(wanted.max)
    return np.clip(content, -largest, largest).astype(wanted.numpy())


def input_rows(
    layer: Layer, inputs: Array, random: np.random.Generator, rows: int | None = None
) -> tuple[Array, Indices]:
    """Return rows [groups, rows, features] drawn from one batch of inputs, and their output positions.

    The positions count the outputs with the channels taken out: images first, then rows and columns.
    At most `rows` are drawn, or as many as hold `SAMPLE` numbers.
    """
    count, features, _ = matrix(layer, layer.array).shape
    most = max(SAMPLE // (count * features), 1) if rows is None else rows
    if layer.node.op_type != "Conv":
        # Hidden states are [steps, directions, batch, features].
        states = np.moveaxis(inputs, 1, 0) if _reads_states(layer) else inputs
        states = states.reshape(count, -1, features)
        chosen = random.permutation(states.shape[1])[:most]
        return states[:, chosen], chosen
    patches, chosen = _patches(layer, inputs, random, most)
    grouped = patches.reshape(*patches.shape[:2], count, -1)
    return np.moveaxis(grouped, 2, 0).reshape(count, len(chosen), features), chosen


def _patches(layer: Layer, inputs: Array, random: np.random.Generator, most: int) -> tuple[Array, Indices]:
    """Return up to `most` patches of images [patches, taps, channels], drawn, and their output positions."""
    rank, kernel = inputs.ndim - 2, layer.array.shape[2:]
    pads, strides, dilations = (
        np.array(layer.node.attributes.get_ints(name, default), np.int64)
        for name, default in (("pads", [0] * 2 * rank), ("strides", [1] * rank), ("dilations", [1] * rank))
    )
    pixels = np.moveaxis(inputs, 1, -1)  # what is gathered are runs of channels
    padding = [(0, 0), *zip(pads[:rank], pads[rank:], strict=True), (0, 0)]
    padded = np.pad(pixels, padding) if pads.any() else pixels
    reach = dilations * (np.array(kernel) - 1) + 1
    sizes = (len(padded), *((np.array(padded.shape[1:-1]) - reach) // strides + 1))
    chosen = random.permutation(math.prod(map(int, sizes)))[:most]
    image, *corner = np.unravel_index(chosen, sizes)
    taps = np.indices(kernel).reshape(rank, -1) * dilations[:, None]
    place = np.asarray(image)[:, None]
    for size, first, stride, tap in zip(padded.shape[1:-1], corner, strides, taps, strict=True):
        place = place * size + first[:, None] * stride + tap
    return np.take(padded.reshape(-1, padded.shape[-1]), place, axis=0), chosen


def output_rows(layer: Layer, outputs: Array, chosen: Indices) -> Array:
    """Return the outputs [rows, channels] at the positions that `input_rows` chose."""
    last = np.moveaxis(outputs, channel_axis(layer), -1)
    rows: Array = last.reshape(-1, last.shape[-1])[chosen]
    return rows
