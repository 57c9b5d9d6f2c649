"""Importance of coupled channels: one score per channel, larger is more important."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Scores: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]


def slice_energy(weight: npt.NDArray[np.floating], axis: int) -> Scores:
    """Return the sum of squares of every slice of `weight` along `axis`, shape [weight.shape[axis]]."""
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    energy: Scores = np.square(weight, dtype=np.float64).sum(axis=others)
    return energy


def coupled(parts: Iterable[tuple[Scores, Indices]], size: int) -> Scores:
    """Return the importance of each of `size` channels from the energies of all tensors that share them.

    The energies of each tensor are scaled to mean 1, so that large weights do not outweigh small ones (Fang
    et al., DepGraph, CVPR 2023, section 3.3). The result is the root of their mean, so that groups of
    different size and depth can be compared.

    Args:
        parts: for each tensor, the energies along one of its dimensions, and for each index of that
            dimension the channel that it belongs to, or -1.
        size: number of channels.
    """
    total, count = np.zeros(size), 0
    for energies, channels in parts:
        inside = channels >= 0
        energy = np.bincount(channels[inside], weights=energies[inside], minlength=size)
        total += energy / (energy.mean() or 1.0)
        count += 1
    return np.sqrt(total / max(count, 1))
