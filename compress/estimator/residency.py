"""Which tensors stay on the chip between layers, or between inferences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from compress.estimator.hardware import Profile
    from compress.estimator.workload import LayerWork

SHARE = 0.5
"""Part of a memory that whole tensors may fill; the rest is for the tiles of the layer at work."""


def homes(layers: Sequence[LayerWork], profile: Profile, outputs: frozenset[str]) -> dict[str, int]:
    """Return the index of the memory where a tensor lives, by name; others live in the outermost memory.

    Weights stay in a memory that keeps weights if all of them fit into its `SHARE`. An intermediate
    result stays in the outermost memory that keeps activations if it fits beside everything that is
    alive at the same time; earlier results come first. Inputs and `outputs` of the graph are in the
    outermost memory.
    """
    found: dict[str, int] = {}
    weights = {o.name: o.bytes for layer in layers for o in layer.operands if o.is_weight}
    lifetimes = _lifetimes(layers, outputs)
    for level, memory in enumerate(profile.memories[:-1]):
        if memory.capacity_bytes is None:
            continue
        room = memory.capacity_bytes.value * SHARE
        if "weights" in memory.keeps and sum(weights.values()) <= room:
            found |= dict.fromkeys(weights, level)
            room -= sum(weights.values())
            weights = {}
        if "activations" in memory.keeps:
            kept = _fitting(lifetimes, len(layers), room)
            found |= dict.fromkeys(kept, level)
            lifetimes = {name: life for name, life in lifetimes.items() if name not in kept}
    return found


def _lifetimes(layers: Sequence[LayerWork], outputs: frozenset[str]) -> dict[str, tuple[int, int, float]]:
    """Return first and last layer, and bytes, of every tensor that is both made and read."""
    made: dict[str, int] = {}
    lives: dict[str, tuple[int, int, float]] = {}
    for index, layer in enumerate(layers):
        for operand in layer.operands:
            if operand.name in made and operand.name not in outputs:
                lives[operand.name] = (made[operand.name], index, operand.bytes)
        if layer.produces:
            made.setdefault(layer.produces, index)
    return lives


def _fitting(lifetimes: dict[str, tuple[int, int, float]], count: int, room: float) -> list[str]:
    used = np.zeros(count)
    kept = []
    for name, (first, last, size) in lifetimes.items():
        alive = used[first : last + 1]
        if alive.max() + size <= room:
            alive += size
            kept.append(name)
    return kept
