"""How close the outputs of a variant are to the original's: signal over noise, and cosine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from compress.data import Feeds
from compress.errors import PassError
from compress.progress import track
from compress.results import Agreement

Array: TypeAlias = np.ndarray
Run: TypeAlias = Callable[[Feeds], list[Array]]
"""Runs a model on one batch: feeds by input name in, outputs in the graph's order out."""


class Mean:
    """A mean over all elements of all batches."""

    def __init__(self, of: Callable[[Array, Array], Array], then: Callable[[float], float] = float) -> None:
        self.of = of
        self.then = then
        self.total = 0.0
        self.count = 0

    def update(self, output: Array, label: Array) -> None:
        """Take in one batch."""
        values = self.of(output, label)
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size

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


def agreement(run: Run, original: Run, batches: Iterable[Feeds]) -> Agreement:
    """Compare all float outputs of `run` with the original's.

    Raises:
        PassError: the outputs are not finite where the original's are, or have other shapes.
    """
    signal: dict[int, float] = {}
    noise: dict[int, float] = {}
    cosines: dict[int, Mean] = {}
    for feeds in track(batches, "comparing with the original"):
        for index, (ours, theirs) in enumerate(zip(run(feeds), original(feeds), strict=True)):
            if theirs.dtype.kind != "f":
                continue
            _check_comparable(index, ours, theirs)
            finite = np.isfinite(theirs)
            a = np.where(finite, ours, 0).astype(np.float64)
            b = np.where(finite, theirs, 0).astype(np.float64)
            signal[index] = signal.get(index, 0.0) + float(np.square(b).sum())
            noise[index] = noise.get(index, 0.0) + float(np.square(a - b).sum())
            cosines.setdefault(index, Mean(cosine)).update(np.atleast_1d(a), np.atleast_1d(b))
    if not signal:
        return Agreement(snr_db=math.inf, cosine=1.0)
    ratios = {index: decibels(signal[index], noise[index]) for index in signal}
    worst = min(ratios, key=lambda index: ratios[index])
    return Agreement(snr_db=ratios[worst], cosine=cosines[worst].value)


def _check_comparable(index: int, ours: Array, theirs: Array) -> None:
    if ours.shape != theirs.shape:
        raise PassError(f"output {index} has shape {ours.shape} where the original's has {theirs.shape}")
    if not np.isfinite(ours[np.isfinite(theirs)]).all():
        raise PassError(f"output {index} holds NaN or infinite values where the original's are finite")


def decibels(signal: float, noise: float) -> float:
    """Return ``10 log10(signal / noise)``; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
