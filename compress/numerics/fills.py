"""Numbers that stand for nothing: what a mask puts in the place of others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FILL = 1000
"""How many times smaller everything else must be for the largest number to be no result but a fill."""


def is_fill(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Tell which numbers a mask has put in the place of others, as -1e9 in the place of logits.

    That is the finite number of the largest magnitude, if it stands there more than once and all others are
    a thousand times smaller, but not all zero. As a signal, or as the measure of an error, it would hide
    every other number.
    """
    sizes = np.where(np.isfinite(values), np.abs(values), 0)
    largest = sizes.max(initial=0)
    found = sizes == largest
    rest = sizes[~found].max(initial=0)
    return np.asarray(found & bool(np.count_nonzero(found) > 1 and 0 < rest <= largest / FILL))
