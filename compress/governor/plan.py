"""How much a request may cost, were the forecast to come true."""

from __future__ import annotations

import math

import numpy as np


def allowance(charge: float, income: np.ndarray, requests: np.ndarray, capacity: float = math.inf) -> float:
    """Return the joules that each request from now on may cost, as evenly as the store permits.

    Quality is concave in joules, so the best plan spends the same on every request except where the store
    would run empty or overflow: it is the shortest path between both limits, a taut string (Tutuncuoglu and
    Yener, "Optimum Transmission Policies for Battery Limited Energy Harvesting Nodes", IEEE Transactions on
    Wireless Communications 11(3), 2012). This is the slope of its first piece.

    Args:
        charge: joules in the store now.
        income: joules that flow in until the end of each interval [n].
        requests: requests that arrive until then [n].
        capacity: joules that the store holds.
    """
    least, most = 0.0, math.inf
    count = np.maximum(requests, 1e-9)
    for empty, full in zip((charge + income) / count, (charge + income - capacity) / count, strict=True):
        if full > most:
            return float(most)
        if empty < least:
            return float(least)
        least, most = max(least, full), min(most, empty)
    return float(max(most, 0.0))
