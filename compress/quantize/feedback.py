"""Integers of weights by GPTQ and AdaRound, for convolutions and linear layers with a scale per channel."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compress.graph.linear import from_matrix, linear_layers, matrix, source
from compress.graph.moments import observe_rows
from compress.numerics.affine import Quantized, quantize, split_columns
from compress.numerics.formats import IntegerFormat
from compress.numerics.gptq import TILE, gptq
from compress.numerics.granularity import Granularity, PerAxis
from compress.numerics.grouped import gptq_groups
from compress.numerics.rounding import learn_rounding

if TYPE_CHECKING:
    from compress.graph.layers import Layer
    from compress.model import Model

MOMENTS_BYTES = 1 << 29
"""Memory for second moments; layers that need more take more sweeps over the calibration data."""
FEW_BITS = 5
"""Most bits at which the range with the least squared error beats the extremes of a weight."""
ROWS_OF_A_BATCH, SAMPLED_BATCHES = 128, 8
"""Rows kept of a batch, and batches of which rows are kept, for AdaRound."""


def solve(
    model: Model, layers: Sequence[Layer], widths: Sequence[int], *, learn: bool = False
) -> dict[int, dict[str, Quantized]]:
    """Return the integers of each layer's weight by bits and the weight's name, one scale an output channel.

    GPTQ sees the inputs of the float model. A layer with fewer rows of inputs than features is left out,
    because it would be overfitted to them.

    Args:
        model: a float model with calibration data.
        layers: convolutions and linear layers of it, as `linear_layers` yields them.
        widths: bits of the integers; the inputs are observed once for all of them.
        learn: whether AdaRound refines the integers on a sample of the rows.

    Raises:
        DataError: there are no calibration data, or they are not finite.
    """
    found: dict[int, dict[str, Quantized]] = {bits: {} for bits in widths}
    for sweep in _sweeps(_sharing_inputs(layers)):
        for sharing, seen in zip(sweep, _observe(model, sweep), strict=True):
            moments = seen.matrix()
            for bits in widths if seen.count >= moments.shape[-1] else ():
                for layer, solved in zip(sharing, _gptq(sharing, moments, bits), strict=True):
                    integers = _learn(layer, solved, seen) if learn else solved
                    found[bits][layer.weight.name or ""] = _in_layout(layer, integers)
    return found


def solve_all(
    model: Model, chosen: Callable[..., bool], bits: int, learn: bool = False
) -> dict[str, Quantized]:
    """Return the integers of all chosen linear weights by GPTQ, and AdaRound if `learn`, by weight name."""
    return solve_widths(model, chosen, [bits], learn)[bits]


def solve_widths(
    model: Model, chosen: Callable[..., bool], widths: Sequence[int], learn: bool = False
) -> dict[int, dict[str, Quantized]]:
    """Return what `solve_all` does, by bits, from observing the layers' inputs once."""
    layers = [layer for layer in linear_layers(model.graph) if chosen(*layer.names)]
    return solve(model, layers, widths, learn=learn)


def solve_changed(
    model: Model, chosen: Callable[..., bool], before: Model, known: Mapping[int, Mapping[str, Quantized]]
) -> dict[int, dict[str, Quantized]]:
    """Return what `solve_widths` does for a model made of another one, whose integers are known.

    A weight that has not changed keeps them: its layer's inputs have not changed either, since smoothing
    changes both or none.
    """
    old, new = before.graph.initializers, model.graph.initializers
    same = {name for name in new if name in old and new[name].const_value is old[name].const_value}
    found = solve_widths(model, lambda *names: chosen(*names) and same.isdisjoint(names), [*known])
    return {
        bits: {name: each for name, each in weights.items() if name in same} | found[bits]
        for bits, weights in known.items()
    }


def kernel_format(bits: int, granularity: Granularity) -> IntegerFormat:
    """Return the format of the weight of an integer kernel."""
    return IntegerFormat(bits, granularity, narrow=True, method="mse" if bits <= FEW_BITS else "minmax")


def _sharing_inputs(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Return the layers, those that multiply the same rows together."""
    found: dict[Hashable, list[Layer]] = {}
    for layer in layers:
        attributes = layer.node.attributes
        window = [tuple(attributes.get_ints(name, [])) for name in ("pads", "strides", "dilations")]
        around = attributes.get_string("auto_pad", "NOTSET"), attributes.get_int("transA", 0)
        kernel = layer.array.shape[2:], *matrix(layer, layer.array).shape[:2]
        found.setdefault((source(layer), layer.node.op_type == "Conv", *around, *window, *kernel), []).append(
            layer
        )
    return list(found.values())


def _sweeps(groups: Sequence[list[Layer]]) -> Iterator[list[list[Layer]]]:
    """Yield the groups in parts whose second moments together take no more than `MOMENTS_BYTES`."""
    part: list[list[Layer]] = []
    taken = 0
    for sharing in groups:
        count, features, _ = matrix(sharing[0], sharing[0].array).shape
        size = 4 * count * features**2
        if part and taken + size > MOMENTS_BYTES:
            yield part
            part, taken = [], 0
        part.append(sharing)
        taken += size
    if part:
        yield part


class _Seen:
    """What was observed of the rows that a layer multiplies.

    Attributes:
        count: number of rows.
        rows: a sample of them, [groups, rows, features] of each batch.
    """

    def __init__(self, groups: int, features: int) -> None:
        self.count = 0
        self.rows: list[Tensor] = []
        self._lower = torch.zeros(groups, features, features)

    def observe(self, rows: Tensor) -> None:
        """Add a batch of rows, [groups, rows, features], in any order."""
        for start in range(0, rows.shape[2], TILE):  # only the lower half: the other is its mirror
            tile = rows[:, :, start : start + TILE]
            self._lower[:, start:, start : start + TILE].baddbmm_(rows[:, :, start:].mT, tile)
        self.count += rows.shape[1]
        if len(self.rows) < SAMPLED_BATCHES:
            self.rows.append(rows[:, :ROWS_OF_A_BATCH].clone())

    def matrix(self) -> Tensor:
        """Return the mean of ``x xᵀ``, [groups, features, features]; zeros if nothing was seen."""
        lower = self._lower.tril()
        return (lower + lower.tril(-1).mT) / max(self.count, 1)


def _observe(model: Model, groups: Sequence[Sequence[Layer]]) -> list[_Seen]:
    """Return what each group of layers multiplies on the calibration data."""
    firsts = [sharing[0] for sharing in groups]
    seen = {layer.name: _Seen(*matrix(layer, layer.array).shape[:2]) for layer in firsts}
    observe_rows(model.ir, model.batches(), firsts, lambda layer, rows: seen[layer.name].observe(rows))
    return list(seen.values())


def _content(layer: Layer) -> Tensor:
    """Return a weight as [groups, features, outputs]."""
    return torch.from_numpy(np.array(matrix(layer, layer.array), np.float32, order="C"))


def _gptq(sharing: Sequence[Layer], moments: Tensor, bits: int) -> list[Quantized]:
    """Return integers [features, groups times outputs] of each weight, which multiply the same rows."""
    contents = [_content(layer) for layer in sharing]
    integers = kernel_format(bits, PerAxis(1))
    if len(moments) == 1:
        whole = gptq(torch.cat(contents, 2)[0], moments[0], integers)
        return split_columns(whole, [content.shape[2] for content in contents])
    return [_gptq_groups(content, moments, integers) for content in contents]


def _gptq_groups(content: Tensor, moments: Tensor, integers: IntegerFormat) -> Quantized:
    """Return the integers of one weight of several groups as [features, groups times outputs]."""
    groups, _, outputs = content.shape
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
