"""Convolutions and matrix products as one thing: rows of inputs times a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from compress.graph.layers import Layer, layers

if TYPE_CHECKING:
    from compress.model import Model
    from compress.numerics.gptq import Hessian

Array: TypeAlias = npt.NDArray[np.floating]
Indices: TypeAlias = npt.NDArray[np.int64]

SAMPLE = 1 << 22
"""Numbers that are read from a batch of a layer's inputs, as output positions drawn at random."""


def linear_layers(graph: ir.Graph) -> Iterator[Layer]:
    """Yield every Conv, Gemm and MatMul that is a plain product of its inputs and a weight of its own."""
    for layer in layers(graph):
        node = layer.node
        scaled = any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
        padded = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        turned = node.attributes.get_int("transA", 0) != 0
        plain = node.op_type in ("Conv", "Gemm", "MatMul") and not (scaled or padded or turned)
        if plain and layer.index == 1 and len(layer.weight.uses()) == 1:
            yield layer


def source(layer: Layer) -> str:
    """Return the name of the value that a layer reads."""
    value = layer.node.inputs[0]
    return "" if value is None else value.name or ""


def channel_axis(layer: Layer) -> int:
    """Return the dimension of a layer's input and output that holds the channels."""
    return 1 if layer.node.op_type == "Conv" else -1


def matrix(layer: Layer, weight: Array) -> Array:
    """Return a weight as [groups, features, outputs]; features are kernel positions times channels."""
    groups = layer.node.attributes.get_int("group", 1)
    rows = np.moveaxis(weight if layer.out_axis == 0 else weight.T, 1, -1)
    return rows.reshape(groups, len(rows) // groups, -1).transpose(0, 2, 1)


def from_matrix(layer: Layer, content: Array) -> Array:
    """Return what `matrix` returned in the layout of the layer's weight."""
    outputs, channels, *kernel = np.moveaxis(layer.array, layer.out_axis, 0).shape
    rows = np.moveaxis(content.transpose(0, 2, 1).reshape(outputs, *kernel, channels), -1, 1)
    return np.array(rows if layer.out_axis == 0 else rows.T, np.float32, order="C")


def store(value: ir.Value, content: Array) -> None:
    """Replace an initializer's content."""
    value.const_value = ir.tensor(np.array(content, np.float32, order="C"), name=value.name)


def input_rows(layer: Layer, inputs: Array, random: np.random.Generator) -> tuple[Array, Indices]:
    """Return rows [groups, rows, features] drawn from one batch of inputs, and their output positions.

    The positions count the outputs with the channels taken out: images first, then rows and columns.
    """
    groups, features, _ = matrix(layer, layer.array).shape
    most = max(SAMPLE // (groups * features), 1)
    if layer.node.op_type != "Conv":
        rows = inputs.reshape(-1, features)
        chosen = random.permutation(len(rows))[:most]
        return rows[None, chosen], chosen
    rank = inputs.ndim - 2
    kernel = layer.array.shape[2:]
    pads, strides, dilations = (
        np.array(layer.node.attributes.get_ints(name, default), np.int64)
        for name, default in (("pads", [0] * 2 * rank), ("strides", [1] * rank), ("dilations", [1] * rank))
    )
    padded = np.pad(inputs, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    reach = dilations * (np.array(kernel) - 1) + 1
    sizes = (len(inputs), *((np.array(padded.shape[2:]) - reach) // strides + 1))
    chosen = random.permutation(math.prod(map(int, sizes)))[:most]
    image, *corner = (axis.reshape(-1, *[1] * rank) for axis in np.unravel_index(chosen, sizes))
    taps = np.indices(kernel)
    place = [corner[i] * strides[i] + taps[i] * dilations[i] for i in range(rank)]
    patches = np.moveaxis(padded, 1, -1)[image, *place]  # [rows, kernel..., channels]
    grouped = patches.reshape(*patches.shape[:-1], groups, -1)
    return np.moveaxis(grouped, -2, 0).reshape(groups, len(chosen), features), chosen


def output_rows(layer: Layer, outputs: Array, chosen: Indices) -> Array:
    """Return the outputs [rows, channels] at the positions that `input_rows` chose."""
    last = np.moveaxis(outputs, channel_axis(layer), -1)
    rows: Array = last.reshape(-1, last.shape[-1])[chosen]
    return rows


def second_moments(model: Model, chosen: Sequence[Layer]) -> dict[str, Hessian]:
    """Return the second moments of the rows that each ungrouped layer multiplies, by layer name.

    Raises:
        DataError: there are no calibration data.
    """
    import torch

    from compress.graph.capture import observe
    from compress.numerics.gptq import Hessian

    found = {layer.name: Hessian(matrix(layer, layer.array).shape[1]) for layer in chosen}
    readers: dict[str, list[Layer]] = {}
    for layer in chosen:
        readers.setdefault(source(layer), []).append(layer)
    random = np.random.default_rng(0)

    def update(name: str, values: Array) -> None:
        for layer in readers[name]:
            rows, _ = input_rows(layer, values, random)
            found[layer.name].update(torch.from_numpy(np.ascontiguousarray(rows[0])))

    observe(model, readers, update, progress="inputs of layers")
    return found
