"""Numbers that stand for nothing: what a mask puts in the place of others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAST = 1e4
"""Least size of a fill; probabilities, which are often all but zero or one, are far below."""
FACTOR = 100
"""How many times smaller everything else must be for the largest number to be no result but a fill."""


def is_fill(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Tell which numbers a mask has put in the place of others, as -1e9 in the place of logits.

    That is the finite number of the largest magnitude, if it is at least 1e4, stands there more than once and
    all others are a hundred times smaller, but not all zero. As a signal, or as the measure of an error, it
    would hide every other number.
    """
    if max(float(values.max(initial=0)), -float(values.min(initial=0))) < LEAST:  # false where one is NaN
        return np.zeros(values.shape, bool)
    values = values.astype(np.float64)
    sizes = np.where(np.isfinite(values), np.abs(values), 0)
    largest = sizes.max(initial=0)
    found = sizes == largest
    rest = sizes[~found].max(initial=0)
    far = largest >= LEAST and 0 < rest <= largest / FACTOR
    return np.asarray(found & bool(far and np.count_nonzero(found) > 1))


def yardstick(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return what an error of each number is to be measured by: the largest number, for a fill itself."""
    fills, sizes = is_fill(values), np.where(np.isfinite(values), np.abs(values), 0)
    return np.asarray(np.where(fills, sizes, sizes[~fills].max(initial=0.0)))
