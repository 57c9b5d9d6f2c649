"""The joules that may still be spent."""

from __future__ import annotations

import math
from dataclasses import replace

from compress.governor.budget import Budget


class Store:
    """A budget as it is used up: what is granted and harvested flows in, what is spent flows out.

    Attributes:
        budget: the budget.
        charge: joules that are there now.
        spent: joules spent so far.
        let_in: joules granted so far.
        received: joules that were there at the beginning, granted, or harvested and kept.
    """

    def __init__(self, budget: Budget, start: float = 0.0) -> None:
        self.budget = budget
        self.charge = self.received = budget.joules
        self.spent = 0.0
        self._start = self._since = start
        self._earlier, self.let_in = 0.0, 0.0

    def remaining(self, now: float) -> float:
        """Return the seconds from `now` that the joules must last."""
        return self.budget.remaining(now, self._start)

    def granted(self, now: float) -> float:
        """Return the joules granted from the start until `now`, the period that has begun included."""
        period = self.budget.period_seconds
        begun = (math.floor((now - self._since) / period + 1e-9) + 1) * period
        if self.budget.ends:
            begun = min(begun, now - self._since + self.remaining(now))
        return self._earlier + self.budget.watts * begun

    def advance(self, now: float, harvested: float = 0.0) -> None:
        """Let in what was granted until `now`, and what was harvested as far as there is room."""
        granted = max(self.granted(now), self.let_in)
        room = max(self.budget.capacity_joules - self.charge, 0.0)
        income = min(granted - self.let_in + harvested, room)
        self.let_in = granted
        self.charge += income
        self.received += income

    def grant(self, watts: float, now: float) -> None:
        """Grant another power from `now` on."""
        self._earlier += self.budget.watts * (now - self._since)
        self._since = now
        self.budget = replace(self.budget, watts=watts)

    def spend(self, joules: float) -> None:
        """Take out what a request cost."""
        self.charge -= joules
        self.spent += joules
