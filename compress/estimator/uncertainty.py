"""Energies as distributions: what the numbers of a profile may really be, drawn a few hundred times at once.

Two variants share the draws: a memory that needs more than the profile says needs more for both, and their
ratio hardly changes. What they do not share is the error of the model itself, which differs between layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist
from typing import Protocol
from zlib import crc32

import numpy as np

from compress.results import EnergyRatio

DRAWS = 300
LOW, HIGH = 0.05, 0.95
"""The quantiles that low and high ends stand for: nine of ten values lie between them."""
MODEL_LOG_SD = 0.18
"""Standard deviation of the logarithm of estimated over true energy from network to network on one board,
once the board's mean is right: pooled over the rows of MLPerf Tiny."""
_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / DRAWS) for i in range(DRAWS)])
_END = NormalDist().inv_cdf(HIGH)


@lru_cache(maxsize=4096)
def standard(name: str) -> np.ndarray:
    """Return `DRAWS` standard normal numbers, always the same for a name.

    They are the quantiles of the distribution in an order that the name decides (Latin hypercube sampling,
    McKay et al. 1979), so that a few hundred are enough.
    """
    drawn = np.random.default_rng(crc32(name.encode())).permutation(_QUANTILES)
    drawn.flags.writeable = False
    return drawn


@lru_cache(maxsize=4096)
def factors(name: str, low: float, high: float) -> np.ndarray:
    """Return 1, and `DRAWS` factors of which nine of ten lie between `low` and `high`.

    The logarithm is normal on either side of 1, with a width for each side.
    """
    normal = standard(name)
    widths = np.where(normal < 0, -np.log(low), np.log(high)) / _END
    drawn = np.concatenate([[1.0], np.exp(widths * normal)])
    drawn.flags.writeable = False
    return drawn


@dataclass(frozen=True, slots=True)
class Drawn:
    """Joules of a layer or a network in each draw; they add."""

    joules: np.ndarray = field(default_factory=lambda: np.zeros(DRAWS))
    """Joules if the model is right."""
    unsure: np.ndarray = field(default_factory=lambda: np.zeros(DRAWS))
    """Sum over the layers of joules times the standard normal number of the layer."""
    log_sd: float = 0.0
    """Standard deviation of the logarithm of the model's error."""
    timed: np.ndarray = field(default_factory=lambda: np.zeros(DRAWS))
    """Further joules, of a power over a measured time, in which that error has no part."""

    def __add__(self, other: Drawn) -> Drawn:
        log_sd = max(self.log_sd, other.log_sd)
        return Drawn(self.joules + other.joules, self.unsure + other.unsure, log_sd, self.timed + other.timed)

    @property
    def energies(self) -> np.ndarray:
        """Joules with the model's error.

        A whole network is off by `log_sd`, however many layers it has. Two variants are off together as far
        as they spend their energy in the same layers.
        """
        scale = float(np.sqrt(np.square(self.unsure).mean()))
        error = np.exp(self.log_sd * self.unsure / scale) if scale else 1.0
        return self.timed + self.joules * error


class Energy(Protocol):
    """A cost, or a score of a run's results."""

    @property
    def energy_joules(self) -> float:
        """Joules at the stated numbers of the profile."""

    @property
    def energy_draws(self) -> np.ndarray | list[float]:
        """Joules in each draw."""


def interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the ends between which nine of ten draws lie."""
    low, high = np.quantile(draws, (LOW, HIGH))
    return float(low), float(high)


def ratio(one: Energy, other: Energy) -> EnergyRatio | None:
    """Return the energy of one estimate over another's on the same hardware; None if there is none."""
    ours, theirs = np.asarray(one.energy_draws), np.asarray(other.energy_draws)
    if not (one.energy_joules and other.energy_joules and len(ours) and len(ours) == len(theirs)):
        return None
    low, high = interval(ours / theirs)
    less = float((ours < theirs).mean() + (ours == theirs).mean() / 2)
    return EnergyRatio(value=one.energy_joules / other.energy_joules, low=low, high=high, less=less)
