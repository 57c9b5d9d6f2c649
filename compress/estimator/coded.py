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
"""Elements of weights that are not worth a coder's table."""


@dataclass(frozen=True)
class Coded:
    """Weights that are stored entropy-coded."""

    bytes: Mapping[str, float]
    """Coded size by initializer name; scales and zero points that belong to it are not in it."""
    decode_at: str
    """The innermost place that sees coded bytes, decoded on the way out of it: ``load`` (the runtime
    decodes them before it starts: no traffic is saved), ``dram``, ``glb`` (the first memory behind the
    outermost), ``rf`` (the last memory, at the units), or the name of a memory."""

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
        """Return the index of the outermost memory that holds weights decoded; past the last for none."""
        last = len(profile.memories)
        places = {"load": 0, "dram": 1, "glb": min(2, last), "rf": last}
        return places[self.decode_at] if self.decode_at in places else profile.level(self.decode_at) + 1


def by_entropy(model: ir.Model, decode_at: str) -> Coded:
    """Return the weights of a model at the size that an ideal coder of single symbols reaches.

    Symbols are the stored codes, or each byte of a float on its own. Coders such as rANS or arithmetic
    coding come within a few percent of it; what they gain by context is left out.
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
