"""Second moments of what layers read: all that least squares and GPTQ need of the data, or their diagonal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir
import torch

from compress.data import Feeds
from compress.graph.capture import observe
from compress.graph.layers import Layer
from compress.graph.linear import Array, input_rows, matrix, source
from compress.numerics.affine import require_finite
from compress.numerics.gptq import Hessian

LARGEST = 1e15
"""Size from which values count as this large: sums of larger squares leave float32."""


def second_moments(model: ir.Model, batches: Iterable[Feeds], chosen: Sequence[Layer]) -> dict[str, Hessian]:
    """Return the second moments of the rows that each ungrouped layer multiplies, by layer name.

    Raises:
        DataError: there are no calibration data, or they are not finite.
    """
    found = {layer.name: Hessian(matrix(layer, layer.array).shape[1]) for layer in chosen}
    observe_rows(model, batches, chosen, lambda layer, rows: found[layer.name].observe(rows[0]))
    return found


def mean_squares(
    model: ir.Model, batches: Iterable[Feeds], chosen: Sequence[Layer]
) -> dict[str, torch.Tensor]:
    """Return the mean square [K] of each feature that each ungrouped layer multiplies, by layer name.

    That is the diagonal of the second moments, which has K numbers where they have the square of K.

    Raises:
        DataError: there are no calibration data, or they are not finite.
    """
    sums = {layer.name: torch.zeros(matrix(layer, layer.array).shape[1]) for layer in chosen}
    counts = dict.fromkeys(sums, 0)

    def add(layer: Layer, rows: torch.Tensor) -> None:
        sums[layer.name] += rows[0].square().sum(dim=0)
        counts[layer.name] += rows.shape[1]

    observe_rows(model, batches, chosen, add)
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def observe_rows(
    model: ir.Model,
    batches: Iterable[Feeds],
    chosen: Sequence[Layer],
    take: Callable[[Layer, torch.Tensor], None],
) -> None:
    """Call ``take(layer, rows)`` for each layer and batch with rows [groups, rows, features] of its inputs.

    Raises:
        DataError: there are no calibration data, or they are not finite.
    """
    readers: dict[str, list[Layer]] = {}
    for layer in chosen:
        readers.setdefault(source(layer), []).append(layer)
    random = np.random.default_rng(0)

    def split(name: str, values: Array) -> None:
        for layer in readers[name]:
            found, _ = input_rows(layer, values, random)
            rows = torch.from_numpy(np.ascontiguousarray(found, np.float32))
            require_finite(rows)
            take(layer, rows.clamp_(-LARGEST, LARGEST))

    observe(model, readers, batches, split, progress="inputs of layers")
