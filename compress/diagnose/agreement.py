"""How close the outputs of a variant are to the original's.

Floats are compared as signal and noise; integers, booleans and strings by the share of equal elements. Where
the data choose which items an output has, those of both models are matched by value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from compress.data import Feeds
from compress.diagnose.outputs import Output
from compress.errors import PassError
from compress.numerics.fills import is_fill
from compress.progress import track
from compress.results import Agreement

Array: TypeAlias = np.ndarray
Run: TypeAlias = Callable[[Feeds], list[Array]]
"""Runs a model on one batch: feeds by input name in, outputs in the graph's order out."""
BLOCK = 1 << 15
"""Numbers that are compared at a time."""
ROWS = 8
"""Rows from which on a largest element that always stands in one place tells nothing."""


class Mean:
    """A mean over all elements of all batches."""

    def __init__(self, of: Callable[[Array, Array], Array], then: Callable[[float], float] = float) -> None:
        self.of = of
        self.then = then
        self.total = 0.0
        self.count = 0

    def update(self, output: Array, label: Array) -> Array:
        """Take in one batch; return its values."""
        values = self.of(output, label)
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size
        return values

    @property
    def value(self) -> float:
        """The mean so far; NaN before the first element."""
        return self.then(self.total / self.count) if self.count else math.nan


def cosine(output: Array, label: Array) -> Array:
    """Return the cosine of each row (last axis) and the label's; 1 where both are zero."""
    a, b = np.asarray(output, np.float64), np.asarray(label, np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_zero = (a == 0).all(-1) & (b == 0).all(-1)
    return np.where(both_zero, 1.0, (a * b).sum(-1) / np.where(norms > 0, norms, 1.0))


def same(output: Array, label: Array) -> Array:
    """Tell which elements are equal; NaN equals NaN."""
    return np.asarray((output == label) | ((output != output) & (label != label)), bool)


def same_place(output: Array, label: Array) -> Array:
    """Tell of each row (last axis) whether its largest element stands in the same place."""
    return np.asarray(output.argmax(-1) == label.argmax(-1))


def agreement(run: Run, original: Run, batches: Iterable[Feeds], outputs: Sequence[Output] = ()) -> Agreement:
    """Compare all outputs of `run` with the original's.

    Args:
        run: the variant.
        original: the original.
        batches: feeds to run both on.
        outputs: what the graph says of them; without, each has its number for a name and the same shape
            in both models.

    Raises:
        PassError: outputs are not finite where the original's are, or have shapes that the graph rules out.
    """
    found = [_Compared(each) for each in outputs]
    for feeds in track(batches, "comparing with the original"):
        ours, theirs = run(feeds), original(feeds)
        if len(ours) != len(theirs):
            raise PassError(f"{len(ours)} outputs where the original has {len(theirs)}")
        found = found or [_Compared(Output(f"{number}")) for number in range(len(theirs))]
        for each, mine, other in zip(found, ours, theirs, strict=True):
            each.update(mine, other)
    compared = [each for each in found if not each.mismatch]
    noisy = {each: ratio for each in compared if (ratio := each.snr_db) is not None}
    worst = min(noisy, key=lambda each: noisy[each], default=None)
    shares = [each.equal for each in compared if each.equal is not None]
    return Agreement(
        snr_db=None if worst is None else noisy[worst],
        cosine=None if worst is None else worst.cosine.value,
        equal=min(shares, default=None if noisy or not compared else 1.0),
        top1=min((each.top1.value for each in compared if each.is_ranked), default=None),
        notes={each.output.name: each.note for each in compared if each.note},
        not_comparable={each.output.name: each.mismatch for each in found if each.mismatch},
    )


class _Compared:
    """One output of both models, batch after batch.

    Attributes:
        output: what the graph says of it.
        mismatch: why the two cannot be compared; empty if they can.
        signal: sum of the squares of the original's floats, but for NaN, infinity and what masks fill in.
        noise: sum of the squares of the variant's differences from them.
        cosine: mean over the rows of floats.
        top1: how often `same_place` holds, in floats of two or three axes.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self.mismatch = ""
        self.signal = self.noise = 0.0
        self.cosine, self.top1 = Mean(cosine), Mean(same_place)
        self._is_float = False
        self._winners: set[int] = set()
        self._elements = Mean(same)
        self._odd = Mean(same)  # of floats that are no numbers in the original: NaN, infinite, a mask's fill
        self._varies = _Variety()

    def update(self, ours: Any, theirs: Any) -> None:
        """Take in the output of one batch: an array, a sequence, a map, or None."""
        mine, other = arrays(ours), arrays(theirs)
        self._varies.update(other)
        if _keys(ours) != _keys(theirs):
            self.mismatch = "its maps have other keys than the original's"
        elif len(mine) != len(other):
            self.mismatch = f"{len(mine)} arrays where the original has {len(other)}"
        for each, reference in zip(mine, other, strict=False):
            if not self.mismatch:
                self._add(each, reference)

    def _add(self, ours: Array, theirs: Array) -> None:
        self._is_float = is_float(theirs)
        along = self.output.along
        if along is not None and not self._is_float:
            matched = _matched(ours, theirs, along)
            self._elements.update(matched, np.ones_like(matched))
            return
        if ours.shape != theirs.shape:
            self.mismatch = f"shape {ours.shape} where the original's has {theirs.shape}"
            if not self.output.may_differ(ours.shape, theirs.shape):
                raise PassError(f"output {self.output.name} has {self.mismatch}")
            return
        self._elements.update(ours, theirs)
        if self._is_float:
            self._add_floats(ours, theirs)

    def _add_floats(self, ours: Array, theirs: Array) -> None:
        finite = np.isfinite(theirs)
        told = finite & ~is_fill(theirs)
        if not np.isfinite(ours[finite]).all():
            problem = "holds NaN or infinite values where the original's are finite"
            raise PassError(f"output {self.output.name} {problem}")
        self._odd.update(ours[~told], theirs[~told])
        with np.errstate(over="ignore", invalid="ignore"):  # squares of float64; no ratio is made of these
            for mine, other, counts in zip(*map(_blocks, (ours, theirs, told)), strict=True):
                a, b = (np.where(counts, each.astype(np.float64), 0) for each in (mine, other))
                self.signal += float(np.square(b).sum())
                self.noise += float(np.square(a - b).sum())
                self.cosine.update(a, b)
        if 2 <= theirs.ndim <= 3 and theirs.shape[-1] > 1:
            self.top1.update(ours, theirs)
            self._winners.update(np.unique(theirs.argmax(-1)).tolist())

    @property
    def is_ranked(self) -> bool:
        """Whether the place of the largest tells anything: rows that are sorted all have it in the same."""
        return 0 < self.top1.count < ROWS or len(self._winners) > 1

    @property
    def snr_db(self) -> float | None:
        """The ratio of signal to noise; None where there is none of either."""
        return decibels(self.signal, self.noise)

    @property
    def equal(self) -> float | None:
        """The share of equal elements, of all or of those that have no noise; None where noise tells all."""
        if self._odd.total < self._odd.count:
            return self._odd.value
        told = self._is_float and (self.snr_db is not None or self._elements.value == 1)
        return None if told or not self._elements.count else self._elements.value

    @property
    def note(self) -> str:
        """What the numbers do not say."""
        said = [self._varies.note] if self._varies.note else []
        if self._odd.total < self._odd.count:
            apart = self._odd.count - int(self._odd.total)
            said.append(f"{apart} of {self._odd.count} values that are NaN, infinite or masked differ")
        if self.output.is_chosen and self.snr_db is not None:
            said.append("the data choose its items, and one that is chosen otherwise counts as noise")
        return "; ".join(said)


class _Variety:
    """Whether an output of the original tells anything: one that never changes is easy to agree with."""

    def __init__(self) -> None:
        self.count = self.elements = 0
        self.first: list[Array] = []
        self.is_single = self.repeats = True

    def update(self, batch: list[Array]) -> None:
        """Take in the arrays of one batch."""
        self.first = self.first or batch
        self.count += 1
        self.elements += sum(each.size for each in batch)
        value = next((each.flat[0] for each in self.first if each.size), None)
        self.is_single = self.is_single and all(bool((each == value).all()) for each in batch)
        self.repeats = self.repeats and len(batch) == len(self.first)
        self.repeats = self.repeats and all(map(np.array_equal, batch, self.first))

    @property
    def note(self) -> str:
        """What there is to say, if anything."""
        if not self.elements:
            return "the original's has no elements"
        if self.is_single and self.elements > 1:
            value = next(each.flat[0] for each in self.first if each.size)
            shown = (
                f"{value + 0.0:.6g}" if is_float(np.asarray(value)) else f"{np.asarray(value).item()!r:.40}"
            )
            return f"the original's is constant, {shown} throughout"
        return "the original's is the same for every batch" if self.repeats and self.count > 1 else ""


def _blocks(array: Array) -> Iterator[Array]:
    """Yield the rows (last axis) of an array, as many at a time as a processor's cache holds."""
    *shape, width = np.atleast_1d(array).shape
    rows, step = array.reshape(math.prod(shape), width), max(BLOCK // max(width, 1), 1)
    return (rows[start : start + step] for start in range(0, len(rows), step))


def arrays(output: Any) -> list[Array]:
    """Return the arrays of an output: itself, those of a sequence, or the values of maps, a row each."""
    if output is None:  # an optional that holds nothing
        return []
    if isinstance(output, Mapping):
        return [np.array([[output[key] for key in sorted(output)]])]
    if isinstance(output, list):
        found = [array for each in output for array in arrays(each)]
        rows = {each.shape for each in found} if all(isinstance(each, Mapping) for each in output) else ()
        return [np.concatenate(found)] if len(rows) == 1 else found
    return [np.asarray(output)]


def is_float(array: Array) -> bool:
    """Tell whether an array holds floats, of ten bits or of sixty-four."""
    return array.dtype.kind == "f" or "float" in array.dtype.name


def _keys(output: Any) -> list[list[Any]]:
    """Return the keys of every map in an output."""
    if isinstance(output, Mapping):
        return [sorted(output)]
    return [keys for each in output for keys in _keys(each)] if isinstance(output, list) else []


def _matched(ours: Array, theirs: Array, axis: int) -> Array:
    """Tell of as many items, slices along an axis, as the longer has, whether both have one of that value."""
    mine, other = (Counter(_items(each, axis)) for each in (ours, theirs))
    return np.arange(max(mine.total(), other.total())) < (mine & other).total()


def _items(array: Array, axis: int) -> list[tuple[Any, ...]]:
    rows = np.moveaxis(array, axis, 0)
    return [tuple(row.reshape(-1).tolist()) for row in rows]


def decibels(signal: float, noise: float) -> float | None:
    """Return ``10 log10(signal / noise)``; None where either is nothing or without bound."""
    measured = 0 < signal < math.inf and 0 < noise < math.inf
    return 10 * math.log10(signal / noise) if measured else None
