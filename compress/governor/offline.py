"""What a governor that knew the whole trace could reach: a linear programme."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from compress.errors import CompressError
from compress.governor.frontier import Frontier


@dataclass(frozen=True)
class Optimum:
    """The best that any choice could reach."""

    quality: float
    """Sum over all requests."""
    joules: float


def optimum(
    frontier: Frontier, requests: np.ndarray, income: np.ndarray, charge: float, capacity: float = math.inf
) -> Optimum:
    """Return the best quality within a store, with all requests and all income known beforehand.

    Requests may be divided among options (the relaxation of the knapsack), and joules count from the
    beginning of the interval in which they flow in, so no governor does better.

    Args:
        frontier: the options; no answer is one more.
        requests: requests in each interval [n].
        income: joules that flow in during each [n].
        charge: joules in the store at the beginning.
        capacity: joules that the store holds from one interval to the next.
    """
    intervals = len(requests)
    joules = np.array([each.joules for each in frontier.options] + [0.0])
    quality = np.array([each.quality for each in frontier.options] + [frontier.unanswered])
    scale = joules.max()
    kinds, steps = len(joules), sparse.eye(intervals, format="csr")
    # Columns: requests by interval and option, then what the store holds at the end of each interval.
    spends = sparse.kron(steps, joules[None] / scale)
    holds = steps - sparse.eye(intervals, k=-1, format="csr")
    flows = income / scale
    flows[0] += charge / scale
    answered = sparse.hstack(
        [sparse.kron(steps, np.ones((1, kinds))), sparse.csr_matrix((intervals, intervals))]
    )
    roof = None if math.isinf(capacity) else capacity / scale
    found = linprog(
        np.concatenate([-np.tile(quality, intervals), np.zeros(intervals)]),
        A_ub=sparse.hstack([spends, holds]),
        b_ub=flows,
        A_eq=answered,
        b_eq=requests,
        bounds=[(0, None)] * (intervals * kinds) + [(0, roof)] * intervals,
        method="highs",
    )
    if found.status != 0:
        raise CompressError(f"the offline optimum was not found: {found.message}")
    used = float(np.tile(joules, intervals) @ found.x[: intervals * kinds])
    return Optimum(float(-found.fun), used)
