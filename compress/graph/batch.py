"""Which axis of each input and output is the batch: what names and sizes suggest, and what a run proves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from compress.data import BatchAxis, Feeds, shapes
from compress.errors import DataError, did_you_mean, first_line
from compress.graph.session import RUNTIME_ERRORS
from compress.numerics.fills import yardstick

_NAMES = re.compile(r"(n|b|bs|\w*batch\w*)", re.IGNORECASE)
"""What authors and exporters call the batch."""
MOST_TRIED = 8
"""Candidates that are tried; each costs two runs on one sample."""
Run: TypeAlias = Callable[[Feeds], Sequence[Any]]
"""Runs a model on one batch."""
REFUSED: tuple[type[Exception], ...] = (DataError, *RUNTIME_ERRORS)
"""What a run raises on feeds that the model does not take."""
TOLERANCE = 0.01
"""Difference, over the largest value, up to which a sample's results alone and in its batch are equal."""


@dataclass(frozen=True)
class BatchAxes:
    """The axis along which samples lie; inputs and outputs that all samples share are left out."""

    inputs: Mapping[str, int] = field(default_factory=dict)
    """By input name; empty if there is no batch, or if it is not known for certain."""
    outputs: Mapping[int, int] = field(default_factory=dict)
    """By position of the output."""

    def sample(self, feeds: Feeds, row: int = 0) -> Feeds:
        """Return feeds of one sample; all of the feeds if no batch is known."""
        return {
            name: array if name not in self.inputs else np.take(array, [row], self.inputs[name])
            for name, array in feeds.items()
        }

    def size(self, feeds: Mapping[str, Any]) -> int:
        """Return the number of samples; all of the feeds count as one if no batch is known."""
        return min((feeds[name].shape[axis] for name, axis in self.inputs.items()), default=1)

    def joined(self, batches: Sequence[Feeds]) -> Feeds:
        """Return the samples of several batches as one batch; what all samples share is the first's.

        Raises:
            ValueError: the samples differ in shape.
        """
        return {
            name: array
            if name not in self.inputs
            else np.concatenate([feeds[name] for feeds in batches], self.inputs[name])
            for name, array in batches[0].items()
        }


NO_BATCH = BatchAxes()
"""What is said of data whose batch axis is not known, or that have none."""


def is_named_batch(symbol: str | None) -> bool:
    """Tell whether an open size bears one of the names that are given to the batch."""
    return bool(symbol and _NAMES.fullmatch(symbol))


def symbols(inputs: Iterable[Any]) -> set[str]:
    """Return the open sizes taken for the batch without data: that of its name, or those of first axes."""
    places = [(axis, name) for each in inputs for axis, name in _open(each.shape) if name]
    named = [("batch" not in name.lower(), axis, name) for axis, name in places if is_named_batch(name)]
    return {min(named)[2]} if named else {name for axis, name in places if axis == 0}


def find(run: Run, inputs: Iterable[Any], batches: Sequence[Feeds], stated: BatchAxis = "auto") -> BatchAxes:
    """Return the batch axes, as stated or else proven: a sample alone gives the results it has in its batch.

    Candidates are open axes that share a name or a size. One of them counts as the batch if the first and
    the last sample pass this test, and if it bears a name of the batch or runs through every input with an
    open axis. So a graph's edges, the steps of a sequence or rows that are mixed are not taken for samples.

    Args:
        run: runs the original model.
        inputs: those of the graph or of a session, with name and shape.
        batches: a batch of several samples, or batches that are put together.
        stated: what the user says of it.

    Raises:
        DataError: what is stated does not fit the inputs, or the model does not run on one such sample.
    """
    feeds = batches[0]
    tensors = shapes(feeds)  # samples of a sequence lie along no axis
    open_axes = {each.name: dict(_open(each.shape)) for each in inputs if each.name in tensors}
    if stated is None:
        return NO_BATCH
    if stated != "auto":
        return _as_stated(run, open_axes, feeds, stated)
    for axes in itertools.islice(_candidates(open_axes, feeds), MOST_TRIED):
        named = any(is_named_batch(open_axes[name][axis]) for name, axis in axes.items())
        if not named and len(axes) < sum(map(bool, open_axes.values())):
            continue
        try:
            outputs = results(run, BatchAxes(axes), BatchAxes(axes).joined(batches))
        except REFUSED:
            continue  # the model does not take one row along these axes, or the batches do not fit together
        if outputs:
            return BatchAxes(axes, outputs)
    return NO_BATCH


def _open(shape: Iterable[Any] | None) -> Iterator[tuple[int, str | None]]:
    """Yield the axes whose size is open, each with its name if it has one."""
    for axis, dim in enumerate(shape or ()):
        value = dim if isinstance(dim, int | str | None) else dim.value
        if not isinstance(value, int) or value < 0:
            yield axis, value if isinstance(value, str) and value != "?" else None


def _candidates(open_axes: Mapping[str, Mapping[int, str | None]], feeds: Feeds) -> Iterator[dict[str, int]]:
    """Yield sets of axes of one size, those with a name of the batch first, then early axes."""
    by_symbol: dict[str, list[tuple[str, int]]] = {}
    by_size: dict[int, dict[str, list[int]]] = {}
    for name, axes in open_axes.items():
        for axis, symbol in axes.items():
            by_size.setdefault(feeds[name].shape[axis], {}).setdefault(name, []).append(axis)
            if symbol:
                by_symbol.setdefault(symbol, []).append((name, axis))
    found = [dict(places) for places in by_symbol.values() if len(dict(places)) == len(places)]
    for choices in by_size.values():
        for chosen in itertools.islice(itertools.product(*choices.values()), MOST_TRIED):
            found.append(dict(zip(choices, chosen, strict=True)))

    def order(axes: dict[str, int]) -> tuple[bool, int, int]:
        named = any(is_named_batch(open_axes[name][axis]) for name, axis in axes.items())
        return not named, -len(axes), sum(axes.values())

    seen: list[dict[str, int]] = []
    for candidate in sorted(found, key=order):
        sizes = {feeds[name].shape[axis] for name, axis in candidate.items()}
        if candidate not in seen and len(sizes) == 1:
            seen.append(candidate)
            yield candidate


def results(run: Run, axes: BatchAxes, feeds: Feeds) -> dict[int, int]:
    """Return the batch axis of each output that has one; none at all if samples have a part in each other."""
    count = axes.size(feeds)
    found: dict[int, int] = {}
    if count < 2:
        return found
    samples = {row: run(axes.sample(feeds, row)) for row in (count - 1, 0)}
    whole = run(feeds)
    for row, sample in samples.items():
        for place, (all_rows, alone) in enumerate(zip(whole, sample, strict=True)):
            if not isinstance(all_rows, np.ndarray):
                continue
            axis = _batch_axis(all_rows.shape, alone.shape, count)
            if axis is not None:
                found[place] = axis
                width = alone.shape[axis]
                all_rows = np.take(all_rows, range(row * width, (row + 1) * width), axis)
            if not _alike(all_rows, alone):
                return {}
    return found


def _batch_axis(whole: Sequence[int], alone: Sequence[int], count: int) -> int | None:
    """Return the one axis along which an output shrinks with the batch, if there is one."""
    if len(whole) != len(alone):
        return None
    shrunk = [axis for axis, (a, b) in enumerate(zip(whole, alone, strict=True)) if a != b]
    return shrunk[0] if len(shrunk) == 1 and whole[shrunk[0]] == count * alone[shrunk[0]] else None


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.mean(a == b) >= 1 - TOLERANCE) if a.size else True
    return bool(np.isclose(a, b, rtol=0, atol=TOLERANCE * yardstick(b), equal_nan=True).all())


def _as_stated(
    run: Run,
    open_axes: Mapping[str, Mapping[int, str | None]],
    feeds: Feeds,
    stated: int | Mapping[str, int | None],
) -> BatchAxes:
    """Return the stated axes, without those whose size is fixed in the model."""
    each = dict(stated) if isinstance(stated, Mapping) else dict.fromkeys(feeds, stated)
    for name, axis in each.items():
        if name not in feeds:
            raise DataError(f"batch_axis: the model has no input {name!r}{did_you_mean(name, feeds)}")
        if isinstance(stated, Mapping) and axis is not None and not 0 <= axis < np.ndim(feeds[name]):
            raise DataError(f"batch_axis: input {name!r} has {feeds[name].ndim} axes, and no axis {axis}")
    if isinstance(stated, int) and all(np.ndim(array) <= stated for array in feeds.values()):
        raise DataError(f"batch_axis: no input has an axis {stated}")
    inputs = {
        name: axis for name, axis in each.items() if axis is not None and axis in open_axes.get(name, {})
    }
    sizes = {name: feeds[name].shape[axis] for name, axis in inputs.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{size} of {name!r}" for name, size in sizes.items())
        raise DataError(f"batch_axis: the numbers of samples differ: {shown}; state the axis by input name")
    axes = BatchAxes(inputs)
    try:
        whole, alone = run(feeds), run(axes.sample(feeds))
    except REFUSED as error:
        raise DataError(
            f"batch_axis: the model does not run on one sample along {inputs}: {first_line(error)}; "
            "batch_axis: null times and scores whole batches"
        ) from error
    count = axes.size(feeds)
    shapes = [(np.shape(a), np.shape(b)) for a, b in zip(whole, alone, strict=True)]
    found = {place: _batch_axis(*pair, count) for place, pair in enumerate(shapes)}
    return BatchAxes(inputs, {place: axis for place, axis in found.items() if axis is not None})
