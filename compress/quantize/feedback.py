"""Integers of weights by GPTQ and AdaRound, for convolutions and linear layers with a scale per channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compress.graph.linear import from_matrix, matrix
from compress.graph.moments import observe_rows
from compress.numerics.affine import Quantized, quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.gptq import gptq
from compress.numerics.granularity import PerAxis
from compress.numerics.grouped import gptq_groups
from compress.numerics.rounding import learn_rounding

if TYPE_CHECKING:
    from compress.graph.layers import Layer
    from compress.model import Model

MOMENTS_BYTES = 1 << 30
"""Memory for second moments; layers that need more take more sweeps over the calibration data."""
ROWS_OF_A_BATCH, SAMPLED_BATCHES = 128, 8
"""Rows kept of a batch, and batches of which rows are kept, for AdaRound."""


def solve(model: Model, layers: Sequence[Layer], bits: int, *, learn: bool = False) -> dict[str, Quantized]:
    """Return the integers of each layer's weight by the weight's name, one scale an output channel.

    GPTQ sees the inputs of the float model. A layer with fewer rows of inputs than features is left out,
    because it would be overfitted to them.

    Args:
        model: a float model with calibration data.
        layers: convolutions and linear layers of it, as `linear_layers` yields them.
        bits: bits of the integers.
        learn: whether AdaRound refines the integers on a sample of the rows.

    Raises:
        DataError: there are no calibration data, or they are not finite.
    """
    found: dict[str, Quantized] = {}
    for sweep in _sweeps(layers):
        for layer, seen in zip(sweep, _observe(model, sweep), strict=True):
            if seen.count >= seen.moments.shape[-1]:
                quantized = _gptq(layer, seen.moments / seen.count, bits)
                quantized = _learn(layer, quantized, seen) if learn else quantized
                found[layer.weight.name or ""] = _in_layout(layer, quantized)
    return found


def _sweeps(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Yield the layers in parts whose second moments together take no more than `MOMENTS_BYTES`."""
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


@dataclass(slots=True)
class _Seen:
    """What was observed of the rows that a layer multiplies.

    Attributes:
        moments: sums of ``x xᵀ``, [groups, features, features].
        count: number of rows.
        rows: a sample of them, [groups, rows, features] of each batch.
    """

    moments: Tensor
    count: int = 0
    rows: list[Tensor] = field(default_factory=list)

    def observe(self, rows: Tensor) -> None:
        """Add a batch of rows, [groups, rows, features], in any order."""
        self.moments.baddbmm_(rows.transpose(1, 2), rows)
        self.count += rows.shape[1]
        if len(self.rows) < SAMPLED_BATCHES:
            self.rows.append(rows[:, :ROWS_OF_A_BATCH].clone())


def _observe(model: Model, layers: Sequence[Layer]) -> list[_Seen]:
    """Return what each layer multiplies on the calibration data."""
    shapes = {layer.name: matrix(layer, layer.array).shape for layer in layers}
    seen = {
        name: _Seen(torch.zeros(groups, features, features)) for name, (groups, features, _) in shapes.items()
    }
    observe_rows(model.ir, model.batches(), layers, lambda layer, rows: seen[layer.name].observe(rows))
    return [seen[layer.name] for layer in layers]


def _content(layer: Layer) -> Tensor:
    """Return a weight as [groups, features, outputs]."""
    return torch.from_numpy(np.array(matrix(layer, layer.array), np.float32, order="C"))


def _gptq(layer: Layer, moments: Tensor, bits: int) -> Quantized:
    """Return the integers of a weight as [features, groups times outputs]."""
    content = _content(layer)
    groups, _, outputs = content.shape
    integers = IntegerFormat(bits, PerAxis(1), narrow=True)
    if groups == 1:
        return gptq(content[0], moments[0], integers)
    nearest = quantize(content.movedim(1, 0).flatten(1), integers)
    values = gptq_groups(content, moments, nearest.scale.reshape(groups, 1, outputs), integers)
    return replace(nearest, values=values.movedim(1, 0).flatten(1).to(torch.int8))


def _learn(layer: Layer, start: Quantized, seen: _Seen) -> Quantized:
    """Return integers, in the layout of `start`, that AdaRound finds for the sample of rows."""
    content = _content(layer)
    groups, _, outputs = content.shape
    rows = torch.cat(seen.rows, 1).transpose(0, 1)

    def forward(some: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("rgf,fgo->rgo", some, weight.reshape(-1, groups, outputs))

    weight = content.movedim(1, 0).flatten(1)
    return learn_rounding(weight, start, forward, rows, forward(rows, weight))


def _in_layout(layer: Layer, quantized: Quantized) -> Quantized:
    """Return integers [features, groups times outputs] in the layout of the layer's weight."""
    groups, _, outputs = matrix(layer, layer.array).shape
    values = quantized.values.reshape(-1, groups, outputs).movedim(0, 1)
    codes = torch.from_numpy(from_matrix(layer, values.numpy())).to(torch.int8)
    return replace(quantized, values=codes, format=quantized.format.over(PerAxis(layer.out_axis)))
