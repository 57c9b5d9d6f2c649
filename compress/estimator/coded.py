"""Entropy-coded weights, and where hardware decodes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compress.estimator.workload import LayerWork

if TYPE_CHECKING:
    from compress.estimator.hardware import Profile

SMALL = 1024
"""Most elements of a weight that is not coded: the table of its code would cost more than it saves."""


@dataclass(frozen=True)
class Coded:
    """Weights that are stored entropy-coded."""

    bytes: Mapping[str, float]
    """Coded bytes by initializer name, without the scales and zero points that belong to the weight."""
    decode_at: str
    """The innermost place that holds coded bytes; they are decoded on the way out of it. ``load``: the
    runtime decodes them before it starts, and no traffic is saved. ``dram``; ``glb``, the memory after the
    outermost; ``rf``, the last memory, at the units; or the name of a memory."""

    def applied(self, layer: LayerWork, profile: Profile) -> LayerWork:
        """Return the layer with its weight coded.

        Raises:
            HardwareError: the profile has no such memory.
        """
        level = self._level(profile)
        size = self.bytes.get(layer.weight.name)
        if size is None or not level:
            return layer
        codes = layer.weight.elements * layer.weight.bits / 8
        scales = max(layer.weight.bytes - codes, 0.0)
        seen = min(max(size + scales, 1.0), layer.weight.bytes)
        return replace(layer, weight=replace(layer.weight, coded_bytes=seen, decoded_at=level))

    def _level(self, profile: Profile) -> int:
        """Return the index of the outermost memory that holds decoded weights; past the last if none does."""
        last = len(profile.memories)
        places = {"load": 0, "dram": 1, "glb": min(2, last), "rf": last}
        return places[self.decode_at] if self.decode_at in places else profile.level(self.decode_at) + 1


def by_entropy(model: ir.Model, decode_at: str) -> Coded:
    """Return the weights of a model at the size that an ideal coder of single symbols would reach.

    A symbol is a stored code, or one byte of a float. Coders such as rANS or arithmetic coding come
    within a few percent of this size; gains from context are left out.
    """
    return Coded(
        {
            name: entropy_bytes(value.const_value)
            for graph in model.graphs()
            for name, value in graph.initializers.items()
            if value.const_value is not None and value.const_value.size > SMALL
        },
        decode_at,
    )


def entropy_bytes(tensor: ir.TensorProtocol) -> float:
    """Return the zero-order entropy of a tensor's symbols (Shannon 1948), in bytes."""
    array = np.ascontiguousarray(tensor.numpy())
    planes = array.reshape(-1, 1).view(np.uint8)  # codes below 8 bits come one a byte
    bits = 0.0
    for plane in planes.T:
        counts = np.bincount(plane, minlength=256)
        shares = counts[counts > 0] / plane.size
        bits -= plane.size * float((shares * np.log2(shares)).sum())
    return bits / 8
