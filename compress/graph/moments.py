"""What layers read, as second moments: all that least squares and GPTQ need of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
import torch

from compress.data import Feeds
from compress.graph.capture import observe
from compress.graph.layers import Layer
from compress.graph.linear import Array, input_rows, matrix, source
from compress.numerics.gptq import Hessian


def second_moments(model: ir.Model, batches: Iterable[Feeds], chosen: Sequence[Layer]) -> dict[str, Hessian]:
    """Return the second moments of the rows that each ungrouped layer multiplies, by layer name.

    Raises:
        DataError: there are no calibration data.
    """
    found = {layer.name: Hessian(matrix(layer, layer.array).shape[1]) for layer in chosen}
    readers: dict[str, list[Layer]] = {}
    for layer in chosen:
        readers.setdefault(source(layer), []).append(layer)
    random = np.random.default_rng(0)

    def update(name: str, values: Array) -> None:
        for layer in readers[name]:
            rows, _ = input_rows(layer, values, random)
            found[layer.name].update(torch.from_numpy(np.ascontiguousarray(rows[0])))

    observe(model, readers, batches, update, progress="inputs of layers")
    return found
