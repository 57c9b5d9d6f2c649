"""Rows of the checks: an estimate beside what was measured, and whether that lies where the estimate says.

An interval has two sources. The numbers of a profile are drawn within their ranges. And the model itself
errs; by how much is told, class by class, by the rows that no number was fitted to: its log-sd is the least
with which nine of ten of them, and of one more, would lie inside their interval. A row's own interval is made
with the log-sd that the other rows of its class tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeAlias

import numpy as np

from compress.estimator import Cost
from compress.estimator.uncertainty import interval

SHARE = 0.9
"""Share of the rows that should lie inside."""
STEPS = tuple(np.arange(0, 1.005, 0.005).round(3).tolist())
"""Values of the log-sd that are tried."""
Origin: TypeAlias = Literal["fitted", "left out", "predicted"]


@dataclass(frozen=True, eq=False)
class Row:
    """One check."""

    check: str
    estimated: float
    published: float
    unit: str
    origin: Origin = "predicted"
    cost: Cost | None = None
    """The estimate as a distribution; None where the benchmark alone makes it."""
    beside: Cost | None = None
    """The estimate that it is over, if this is a ratio."""
    noise: float = 0.0
    """Half of the 90 % interval of the logarithm of what was measured."""

    @property
    def error(self) -> float:
        """Relative error."""
        return self.estimated / self.published - 1

    def interval(self, log_sd: float) -> tuple[float, float]:
        """Return the 90 % interval of the estimate where the model errs by that much."""
        assert self.cost is not None
        drawn = _drawn(self.cost, log_sd)
        low, high = interval(drawn / _drawn(self.beside, log_sd) if self.beside is not None else drawn)
        return self.estimated * low, self.estimated * high

    def is_inside(self, log_sd: float) -> bool:
        """Tell whether the measured value lies in that interval, both being uncertain."""
        low, high = (math.log(end / self.estimated) for end in self.interval(log_sd))
        apart = math.log(self.published / self.estimated)
        return -math.hypot(low, self.noise) <= apart <= math.hypot(high, self.noise)


def _drawn(cost: Cost, log_sd: float) -> np.ndarray:
    return np.asarray(replace(cost.drawn, log_sd=log_sd).energies) / cost.energy_joules


@cache
def needed(row: Row) -> float:
    """Return the least log-sd of the model with which a row lies inside its interval."""
    low, high = 0, len(STEPS) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if row.is_inside(STEPS[middle]) else (middle + 1, high)
    return float(STEPS[low])


def log_sd(rows: Sequence[Row]) -> float:
    """Return the least log-sd with which nine of ten such rows, and of one more, lie inside."""
    return sorted(map(needed, rows))[min(math.ceil(SHARE * (len(rows) + 1)), len(rows)) - 1]


def share(held: Sequence[bool]) -> str:
    """Say how many of the rows lie inside."""
    return f"{sum(held):3} of {len(held):3} inside, {sum(held) / len(held):4.0%}"


def inside(rows: Sequence[Row]) -> list[bool]:
    """Tell of each row whether it lies inside its interval, by what the others say of the model."""
    return [row.is_inside(log_sd([other for other in rows if other is not row])) for row in rows]
