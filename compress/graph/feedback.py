"""Integers of weights whose rounding errors make up for each other: GPTQ for convolutions and linears."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compress.graph.capture import observe
from compress.graph.linear import from_matrix, input_rows, matrix, source
from compress.numerics.affine import Quantized, limits, quantize
from compress.numerics.gptq import gptq
from compress.numerics.granularity import PerAxis
from compress.numerics.grouped import gptq_groups

if TYPE_CHECKING:
    from compress.graph.layers import Layer
    from compress.model import Model

MOMENTS_BYTES = 1 << 30
"""Second moments that are held at once; more layers take more sweeps over the calibration data."""


def solve(model: Model, layers: Sequence[Layer], bits: int) -> dict[str, Quantized]:
    """Return the integers of each layer's weight by the weight's name, one scale an output channel.

    GPTQ on the inputs that the float model gives. A layer that sees fewer rows of inputs than it has
    features is left out: it would be fitted to what it saw.

    Args:
        model: a float model with calibration data.
        layers: convolutions and linear layers of it, as `linear_layers` yields them.
        bits: of the integers.

    Raises:
        DataError: there are no calibration data, or they are not finite.
    """
    found: dict[str, Quantized] = {}
    for sweep in _sweeps(layers):
        for layer, moments, rows in _moments(model, sweep):
            if rows >= moments.shape[-1]:
                found[layer.weight.name or ""] = _quantize(layer, moments / rows, bits)
    return found


def _sweeps(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Yield the layers in parts whose second moments fit into memory together."""
    part: list[Layer] = []
    taken = 0
    for layer in layers:
        groups, features, _ = matrix(layer, layer.array).shape
        size = 4 * groups * features**2
        if part and taken + size > MOMENTS_BYTES:
            yield part
            part, taken = [], 0
        part.append(layer)
        taken += size
    if part:
        yield part


def _moments(model: Model, layers: Sequence[Layer]) -> list[tuple[Layer, Tensor, int]]:
    """Return the sums of ``x xᵀ`` over the rows of each layer's inputs, [groups, features, features]."""
    sums = {}
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        groups, features, _ = matrix(layer, layer.array).shape
        sums[layer.name] = torch.zeros(groups, features, features)
        readers.setdefault(source(layer), []).append(layer)
    counts = dict.fromkeys(sums, 0)
    random = np.random.default_rng(0)

    def update(name: str, values: np.ndarray) -> None:
        for layer in readers[name]:
            rows, chosen = input_rows(layer, values, random)
            if not np.isfinite(rows).all():
                raise ValueError("NaN or infinite values")
            x = torch.from_numpy(np.array(rows, np.float32, order="C"))
            sums[layer.name].baddbmm_(x.transpose(1, 2), x)
            counts[layer.name] += len(chosen)

    observe(model, readers, update, progress="inputs of layers")
    return [(layer, sums[layer.name], counts[layer.name]) for layer in layers]


def _quantize(layer: Layer, moments: Tensor, bits: int) -> Quantized:
    """Return the integers of one layer in the layout of its weight."""
    content = torch.from_numpy(np.array(matrix(layer, layer.array), order="C"))
    groups, _, outputs = content.shape
    if groups == 1:
        result = gptq(content[0], moments[0], PerAxis(1), bits, narrow=True, method="minmax")
        values, scale = result.values[None], result.scale
    else:
        rounded = quantize(content.movedim(1, 0).flatten(1), PerAxis(1), bits, narrow=True)
        scale = rounded.scale
        low, high = limits(bits, narrow=True)
        values = gptq_groups(content, moments, scale.reshape(groups, 1, outputs), low, high)
    codes = torch.from_numpy(from_matrix(layer, values.numpy())).to(torch.int8)
    zero_point = torch.zeros(len(scale), dtype=torch.int8)
    return Quantized(codes, scale, zero_point, PerAxis(layer.out_axis), bits, True)
