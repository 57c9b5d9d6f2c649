"""How much of each tensor stays on the chip between layers, or between inferences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from compress.estimator.hardware import Profile
    from compress.estimator.workload import LayerWork

SHARE = 0.5
"""Part of a memory that tensors may stay in; the rest is for the tiles of the layer at work."""
SHARPNESS = 12
"""How suddenly a memory is full. Around its nominal size some of what fits has to leave and some of what does
not can stay, since nobody knows to the byte what else lies there. An assumption: at half the room 2e-5 of a
tensor is outside, at the room 6 %."""

Homes: TypeAlias = Mapping[str, tuple[float, ...]]
"""The parts of a tensor that live in each memory, outermost first, by its name. A tensor without a name here
is in the outermost memory."""


def homes(layers: Sequence[LayerWork], profile: Profile, outputs: frozenset[str]) -> Homes:
    """Return where tensors live.

    Of the weights, the same part of each stays in a memory that keeps weights: as much as fits into its
    `SHARE`. Of an intermediate result, as much stays in the outermost memory that keeps activations as fits
    beside everything that is alive at the same time; earlier results come first, and what does not fit may
    stay further in. Inputs and `outputs` of the graph are in the outermost memory.
    """
    weights = {o.name: o.bytes for layer in layers for o in layer.operands if o.is_weight}
    lifetimes = _lifetimes(layers, outputs)
    outside = dict.fromkeys((*weights, *lifetimes), 1.0)
    found: dict[str, list[float]] = {name: [0.0] * len(profile.memories) for name in outside}
    for level, memory in enumerate(profile.memories[:-1]):
        if memory.capacity_bytes is None:
            continue
        room = memory.capacity_bytes.value * SHARE
        if "weights" in memory.keeps and weights:
            left = math.fsum(size * outside[name] for name, size in weights.items())
            kept = _kept(left, room)
            room -= left * kept
            for name in weights:
                found[name][level] = outside[name] * kept
                outside[name] *= 1 - kept
        if "activations" in memory.keeps:
            for name, kept in _fitting(lifetimes, outside, len(layers), room).items():
                found[name][level] = outside[name] * kept
                outside[name] *= 1 - kept
    for name, rest in outside.items():
        found[name][0] += rest
    return {name: tuple(parts) for name, parts in found.items()}


def part_outside(homes: Homes, name: str, level: int) -> float:
    """Return the part of a tensor that lives in the memory of that level or further out."""
    return math.fsum(homes[name][: level + 1]) if name in homes else 1.0


def _kept(size: float, room: float) -> float:
    """Return which part of `size` bytes stays in a room: a smooth ``min(1, room / size)``."""
    if size <= 0 or room <= 0:
        return 1.0 if size <= 0 else 0.0
    full = size / room
    return float((1 + full**SHARPNESS) ** (-1 / SHARPNESS)) if full < 1e6 else 1 / full


def peak(layers: Sequence[LayerWork], outputs: frozenset[str]) -> tuple[str, float]:
    """Return the layer around which most bytes of inputs and results are alive, and these bytes."""
    lives: dict[str, list[int]] = {}
    sizes: dict[str, float] = {}
    for index, layer in enumerate(layers):
        for operand in layer.operands:
            if not operand.is_weight:
                lives.setdefault(operand.name, [index, index])[1] = index
                sizes[operand.name] = max(sizes.get(operand.name, 0.0), operand.bytes)
    alive = np.zeros(len(layers))
    for name, (first, last) in lives.items():
        alive[first : len(layers) if name in outputs else last + 1] += sizes[name]
    most = int(alive.argmax()) if len(layers) else 0
    return (layers[most].name, float(alive[most])) if layers else ("", 0.0)


def _lifetimes(layers: Sequence[LayerWork], outputs: frozenset[str]) -> dict[str, tuple[int, int, float]]:
    """Return first and last layer, and bytes at a time, of every tensor that is both made and read."""
    made: dict[str, int] = {}
    lives: dict[str, tuple[int, int, float]] = {}
    for index, layer in enumerate(layers):
        for operand in layer.operands:
            if operand.name in made and operand.name not in outputs:
                lives[operand.name] = (made[operand.name], index, operand.bytes / layer.parts)
        if layer.produces:
            made.setdefault(layer.produces, index)
    return lives


def _fitting(
    lifetimes: Mapping[str, tuple[int, int, float]], outside: Mapping[str, float], count: int, room: float
) -> dict[str, float]:
    """Return which part stays of what is still outside, by name."""
    used = np.zeros(count)
    kept = {}
    for name, (first, last, size) in lifetimes.items():
        alive, left = used[first : last + 1], size * outside[name]
        kept[name] = _kept(left, room - float(alive.max()))
        alive += left * kept[name]
    return kept
