"""How much a request may cost, were the forecast to come true."""

from __future__ import annotations

import math

import numpy as np


def allowance(
    charge: float, income: np.ndarray, requests: np.ndarray, capacity: float = math.inf
) -> np.ndarray:
    """Return the joules that each request from now on may cost, as evenly as the store permits [...].

    Quality is concave in joules, so the best plan spends the same on every request except where the store
    would run empty or overflow: it is the shortest path between both limits, a taut string (Tutuncuoglu and
    Yener, "Optimum Transmission Policies for Battery Limited Energy Harvesting Nodes", IEEE Transactions on
    Wireless Communications 11(3), 2012). This is the slope of its first piece.

    Args:
        charge: joules in the store now.
        income: joules that flow in until the end of each interval [..., n], one row a scenario.
        requests: requests that arrive until then [..., n]; what is below zero counts as none.
        capacity: joules that the store holds.
    """
    count = np.maximum(requests, 1e-9)
    empties, overflows = (charge + income) / count, (charge + income - capacity) / count
    least, most = np.zeros(count.shape[:-1]), np.full(count.shape[:-1], math.inf)
    found = np.full(count.shape[:-1], math.nan)
    for place in range(count.shape[-1]):
        empty, overflow = empties[..., place], overflows[..., place]
        # The string bends at the limit that was met first.
        bend = np.where(overflow > most, most, np.where(empty < least, least, math.nan))
        found = np.where(np.isnan(found), bend, found)
        least, most = np.maximum(least, overflow), np.minimum(most, empty)
    return np.maximum(np.where(np.isnan(found), most, found), 0.0)
