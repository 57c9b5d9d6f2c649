"""The price of a joule, and the option that is worth it: dual ascent on a budget, request by request."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from compress.governor.budget import DAY, Budget
from compress.governor.frontier import Frontier, Option
from compress.governor.plan import allowance
from compress.governor.season import Season
from compress.governor.store import Store

HYSTERESIS = 0.15
"""How far the price must pass the worth of a step, relative to it, before the option changes."""
STEP_REQUESTS = 10
"""Requests at the dearer instead of the cheaper of two options that move the price by `HYSTERESIS`."""
SURPRISES = np.array([NormalDist().inv_cdf((place + 0.5) / 25) for place in range(25)])
"""Standard deviations by which more requests come than forecast, in scenarios that are equally likely."""
PLAN_SECONDS = 300.0
PLAN_REQUESTS = 20
"""A plan is made again after this time or this many requests."""


class Controller:
    """Chooses an option for each request so that the joules last, with nothing but the past to go by.

    A plan tells what a request may cost, from the store and from forecasts of requests and harvest. The price
    rises by what a request costs beyond it and falls by what it costs less (dual ascent, projected onto the
    prices at which the plan is best), and the option of most quality less price times joules answers.

    Forecasts err. So the plan goes by what a joule will be worth on average over scenarios of more and fewer
    requests: where the frontier is steep below and flat above, it saves. And joules are held back so that the
    cheapest option can answer more requests than forecast; how many more follows from what an answer is worth
    over what a joule buys beyond it (the critical fractile of the newsvendor).

    Args:
        frontier: the options.
        budget: the joules.
        start: seconds since midnight of the first day.
    """

    def __init__(self, frontier: Frontier, budget: Budget, start: float = 0.0) -> None:
        self._start = start
        self.store = Store(budget, start)
        self.requests, self.harvest = Season(start), Season(start, unseen=0.0)
        self._planned, self._since = -math.inf, 0
        self._allowance, self._reserve = 0.0, 0.0
        self._option = frontier.cheapest
        self.use(frontier)
        self.price = 0.0

    def use(self, frontier: Frontier) -> None:
        """Choose among other options from now on."""
        self.frontier = frontier
        self._slopes = frontier.slopes
        steps = (frontier.worth_of_an_answer, *self._slopes)
        ratio = steps[1] / steps[0] if len(steps) > 1 and steps[0] > 0 else 0.5
        self._margin = NormalDist().inv_cdf(1 - min(max(ratio, 1e-6), 0.5))
        # The one that costs most like the last.
        self._option = min(frontier.options, key=lambda each: abs(each.joules - self._option.joules))

    def learn(self, requests: np.ndarray, harvested: np.ndarray, start: float) -> None:
        """Learn what a day is like from an earlier time, before anything else is done.

        Args:
            requests: seconds since a midnight at which requests came, in order [n].
            harvested: joules harvested from the start until each of them [n].
            start: second of the first day at which that time began.
        """
        days = math.ceil(requests[-1] / DAY) - math.floor(self._start / DAY)
        self.requests, self.harvest = Season(start - days * DAY), Season(start - days * DAY, unseen=0.0)
        amounts = np.diff(harvested, prepend=0.0)
        for now, joules in zip((requests - days * DAY).tolist(), amounts.tolist(), strict=True):
            self.requests.add(now, 1.0)
            self.harvest.add(now, joules)

    def advance(self, now: float, harvested: float = 0.0) -> None:
        """Let time pass until `now`, in which joules were harvested."""
        self.store.advance(now, harvested)
        self.harvest.add(now, harvested)

    def choose(self, now: float) -> Option | None:
        """Return the option for the request that arrives `now`; None if not even the cheapest can be paid."""
        self.requests.add(now, 1.0)
        if now - self._planned >= PLAN_SECONDS or self._since >= PLAN_REQUESTS:
            self._plan(now)
        self._since += 1
        affordable = [
            each for each in self.frontier.options if each.joules + self._reserve <= self.store.charge
        ]
        wanted = self._wanted()
        if wanted in affordable:
            chosen = wanted
        elif affordable:
            chosen = affordable[-1]
        else:
            chosen = self.frontier.cheapest
        return chosen if chosen.joules <= self.store.charge else None

    def _wanted(self) -> Option:
        """Return the option that the price tells, which is the last one unless another is clearly better."""
        options = self.frontier.options
        place = options.index(self._option)
        while place + 1 < len(options) and self.price < self._slopes[place] * (1 - HYSTERESIS):
            place += 1
        while place and self.price > self._slopes[place - 1] * (1 + HYSTERESIS):
            place -= 1
        self._option = options[place]
        return self._option

    def settle(self, joules: float) -> None:
        """Take what a request cost out of the store, and move the price."""
        self.store.spend(joules)
        self._ascend()

    def _ascend(self) -> None:
        """Move the price by what the option that it wants costs beyond the plan."""
        options, allowed = self.frontier.options, self._allowance
        place = sum(each.joules <= allowed for each in options) - 1
        if place < 0:
            self.price = math.inf
        elif place == len(self._slopes):
            self.price = 0.0
        else:
            low, high, slope = options[place], options[place + 1], self._slopes[place]
            beyond = (self._option.joules - allowed) / (high.joules - low.joules)
            moved = self.price + slope * HYSTERESIS * beyond / STEP_REQUESTS
            self.price = min(max(moved, slope * (1 - 2 * HYSTERESIS)), slope * (1 + 2 * HYSTERESIS))

    def _plan(self, now: float) -> None:
        ends, requests = self.requests.ahead(max(self.store.remaining(now), 1.0))
        income = self.harvest.ahead(float(ends[-1]))[1] + self._grants(now, ends)
        spread = self.requests.spread(ends)
        cheapest = self.frontier.cheapest.joules
        charge, capacity = self.store.charge, self.store.budget.capacity_joules
        held = self._margin * spread * cheapest
        # As forecast, as forecast with joules held back, and in the scenarios.
        incomes = np.tile(income, (2 + len(SURPRISES), 1))
        incomes[1] -= held
        counts = requests + np.array([0.0, 0.0, *SURPRISES])[:, None] * spread
        found = allowance(charge, incomes, counts, capacity)
        expected, careful = found[:2].tolist()
        self._allowance = min(self._weighed(expected, found[2:]), max(careful, cheapest))
        # What the cheapest option takes for all that is forecast and some more, before income pays for it.
        self._reserve = max(float((requests * cheapest - income).max()), 0.0) + float(held[0])
        self._planned, self._since = now, 0

    def _weighed(self, expected: float, scenarios: np.ndarray) -> float:
        """Return the allowance moved to where a joule is worth as much now as it is later, on average.

        Args:
            expected: the allowance if as many requests come as are forecast.
            scenarios: the allowance if more or fewer come, each equally likely [n].
        """
        joules = [each.joules for each in self.frontier.options]
        worths = np.array([self.frontier.worth_of_an_answer, *self._slopes, 0.0])
        place = int(np.searchsorted(joules, expected, "right"))
        if not 0 < place < len(joules):
            return expected
        later = float(worths[np.searchsorted(joules, scenarios, "right")].mean())
        dearer = (later / float(worths[place]) - 1) / HYSTERESIS
        if dearer > 0:
            return expected - (expected - joules[place - 1]) * min(dearer, 1.0)
        return expected + (joules[place] - expected) * min(-dearer, 1.0)

    def _grants(self, now: float, ends: np.ndarray) -> np.ndarray:
        """Return what the budget grants until the end of each interval, beyond what it has."""
        if not self.store.budget.watts:
            return np.zeros(len(ends))
        # Just before the end: what a period grants as it begins there comes too late.
        granted = np.array([self.store.granted(now + end) for end in (ends - 1e-3).tolist()])
        return np.maximum(granted - self.store.let_in, 0.0)
