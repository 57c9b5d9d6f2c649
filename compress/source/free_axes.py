"""Which axes of a torch module's inputs may change in size: found by running it with other sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TypeAlias

import numpy as np

from compress.data import BatchAxis, Feeds
from compress.errors import DataError
from compress.graph import batch
from compress.graph.batch import BatchAxes

Place: TypeAlias = tuple[str, int]
"""An axis of an input: its name and the number of the axis."""
Call: TypeAlias = Callable[[Feeds], list[np.ndarray]]
"""Runs a module; raises `DataError` where the module fails."""


def batch_axes(call: Call, feeds: Feeds, stated: BatchAxis) -> BatchAxes:
    """Return the axes along which a module takes samples, as stated or tried on the feeds twice over."""
    inputs = [SimpleNamespace(name=name, shape=[None] * array.ndim) for name, array in feeds.items()]
    return batch.find(call, inputs, [feeds, feeds], stated)


def free_axes(call: Call, batches: Sequence[Feeds], samples: BatchAxes) -> dict[Place, int]:
    """Return every axis that may change in size, each with another size that the module runs at.

    They are the axes that differ between the batches, and those that the module takes at another size,
    alone or together with other axes of the same size. The change must alter the results, or what came
    in addition was not read, but not the number of samples, or these are reshaped together with features.

    Args:
        call: the module.
        batches: inputs of some calls.
        samples: the batch axes, if they are known.
    """
    first = batches[0]
    takes = partial(_takes, call, first, call(first), samples)
    free: dict[Place, int] = {}
    for name, axis in _places(first):
        sizes = {each[name].shape[axis] for each in batches if each[name].ndim > axis}
        others = sizes - {first[name].shape[axis]}
        if others:
            free[name, axis] = max(others)
    for group in _groups(first):
        size = first[group[0][0]].shape[group[0][1]]
        other = None
        if not free.keys() >= set(group):
            other = next((each for each in _others(size) if takes(group, each)), None)
        if other is not None:
            free |= dict.fromkeys(group, other)
    return free


def resized(feeds: Feeds, sizes: Mapping[Place, int]) -> Feeds:
    """Return feeds with other sizes: cut, or begun again from the start."""
    changed = dict(feeds)
    for (name, axis), size in sizes.items():
        rows = np.arange(size) % changed[name].shape[axis]
        changed[name] = np.take(changed[name], rows, axis)
    return changed


def _places(feeds: Feeds) -> list[Place]:
    return [(name, axis) for name, array in feeds.items() for axis in range(array.ndim) if array.shape[axis]]


def _groups(feeds: Feeds) -> Iterator[list[Place]]:
    """Yield axes one by one, then all of one size, then those of one size and position."""
    by_size: dict[tuple[int, ...], list[Place]] = {}
    by_position: dict[tuple[int, ...], list[Place]] = {}
    for name, axis in _places(feeds):
        yield [(name, axis)]
        size = feeds[name].shape[axis]
        by_size.setdefault((size,), []).append((name, axis))
        by_position.setdefault((size, axis), []).append((name, axis))
    for groups in (by_size, by_position):
        yield from (group for group in groups.values() if len(group) > 1)


def _others(size: int) -> tuple[int, ...]:
    """Return sizes to try: the smaller one first, because it takes less time; not 1, which is broadcast."""
    return (size // 2, 2 * size) if size >= 4 else ({1: 2, 2: 3, 3: 5}[size],)


def _takes(
    call: Call, feeds: Feeds, before: Sequence[np.ndarray], samples: BatchAxes, group: list[Place], size: int
) -> bool:
    """Tell whether a module runs if some axes change to `size`, and reads all that it is given."""
    try:
        after = call(resized(feeds, dict.fromkeys(group, size)))
    except DataError:
        return False
    if any(samples.inputs.get(name) == axis for name, axis in group):
        return True
    if all(map(np.array_equal, before, after)):
        return False
    return all(
        before[place].shape[axis] == after[place].shape[axis] for place, axis in samples.outputs.items()
    )
