"""A trace played through a governor, through every single variant, and by one who knew it all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from compress.errors import InputError
from compress.governor.budget import Budget
from compress.governor.controller import Controller
from compress.governor.frontier import Frontier, Option
from compress.governor.offline import optimum
from compress.governor.store import Store
from compress.governor.trace import Trace

INTERVALS = 480
"""Parts of a trace that the offline optimum tells apart."""


@dataclass(frozen=True)
class Course:
    """What came of a trace."""

    name: str
    quality: float
    """Mean over all requests; one that was not answered counts as the frontier says."""
    joules: float
    unanswered: int = 0
    switches: int = 0


@dataclass(frozen=True)
class Step:
    """One request of a replay."""

    time: float
    """Seconds since midnight of the first day."""
    option: Option | None
    """None where it was not answered."""
    charge: float
    """Joules left."""
    price: float
    """Quality that a joule had to buy."""


@dataclass(frozen=True)
class Replay:
    """A trace as the governor, every variant alone and the offline optimum go through it."""

    governor: Course
    fixed: tuple[Course, ...]
    """Every option alone, cheapest first."""
    offline: Course
    """A bound: the best that any choice could reach, had it known the trace beforehand."""
    requests: int
    budget_joules: float
    """What could be spent in all: granted, harvested and there at the beginning."""
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def best_fixed(self) -> Course:
        """The variant that is best on this trace if nothing else is used."""
        return max(self.fixed, key=lambda each: each.quality)

    def gain(self, course: Course) -> float:
        """Return how much of what the offline optimum gains over the cheapest option a course gains, of 1."""
        possible = self.offline.quality - self.fixed[0].quality
        return (course.quality - self.fixed[0].quality) / possible if possible > 1e-12 else 1.0


def replay(trace: Trace, frontier: Frontier, budget: Budget, history: Trace | None = None) -> Replay:
    """Play a trace, request by request.

    Args:
        trace: the requests.
        frontier: the options.
        budget: the joules.
        history: an earlier trace, from which the governor learns what a day is like.

    Raises:
        InputError: the trace grants a power, but the budget is a battery.
    """
    if len(trace.grants[0]) and budget.joules:
        raise InputError("the trace grants budget_watts, but the budget is a battery; give a power as budget")
    controller = learned(Controller(frontier, budget, trace.start), history)
    steps = []

    def choose(now: float, harvested: float, store: Store) -> Option | None:
        controller.advance(now, harvested)
        chosen = controller.choose(now)
        controller.settle(chosen.joules if chosen else 0.0)
        steps.append(Step(now, chosen, store.charge, controller.price))
        return chosen

    governed = _course("governor", trace, frontier, controller.store, choose)
    fixed = tuple(
        _course(str(each), trace, frontier, Store(budget, trace.start), _alone(each))
        for each in frontier.options
    )
    income, arrivals = _income(trace, budget), np.histogram(trace.requests, _edges(trace))[0]
    best = optimum(frontier, arrivals, income, budget.joules, budget.capacity_joules)
    count = len(trace.requests)
    offline = Course("offline optimum", best.quality / count, best.joules)
    total = budget.joules + float(income.sum())
    return Replay(governed, fixed, offline, count, total, tuple(steps))


def learned(controller: Controller, history: Trace | None) -> Controller:
    """Return a controller that has seen an earlier trace; it is taken to have ended at the last midnight."""
    if history is not None:
        controller.learn(history.requests, history.harvested(history.requests), history.start)
    return controller


def _course(
    name: str,
    trace: Trace,
    frontier: Frontier,
    store: Store,
    choose: Callable[[float, float, Store], Option | None],
) -> Course:
    """Return what comes of a way to choose, which also takes the joules out of the store."""
    quality, unanswered, switches = 0.0, 0, 0
    last: Option | None = None
    for now, harvested in _events(trace, store):
        chosen = choose(now, harvested, store)
        if chosen is None:
            unanswered += 1
            quality += frontier.unanswered
            continue
        quality += chosen.quality
        switches += last is not None and chosen is not last
        last = chosen
    return Course(name, quality / len(trace.requests), store.spent, unanswered, switches)


def _events(trace: Trace, store: Store) -> Iterator[tuple[float, float]]:
    """Yield time and joules harvested before each request; powers change as the trace says."""
    changes = list(zip(*(each.tolist() for each in trace.grants), strict=True))
    harvested = np.diff(trace.harvested(trace.requests), prepend=0.0).tolist()
    place = 0
    for now, joules in zip(trace.requests.tolist(), harvested, strict=True):
        while place < len(changes) and changes[place][0] <= now:
            if changes[place][1] != store.budget.watts:
                store.grant(changes[place][1], changes[place][0])
            place += 1
        yield now, joules


def _alone(option: Option) -> Callable[[float, float, Store], Option | None]:
    def choose(now: float, harvested: float, store: Store) -> Option | None:
        store.advance(now, harvested)
        if option.joules > store.charge:
            return None
        store.spend(option.joules)
        return option

    return choose


def _edges(trace: Trace) -> np.ndarray:
    # The last request stands inside the last interval.
    return np.linspace(trace.start, max(trace.end, trace.start + 1e-6), INTERVALS + 1)


def _income(trace: Trace, budget: Budget) -> np.ndarray:
    """Return the joules granted and harvested in each interval [INTERVALS]."""
    edges = _edges(trace)
    store = Store(budget, trace.start)
    changes = [(time, watts) for time, watts in zip(*trace.grants, strict=True)]
    granted = []
    # Until just before each end: what a period grants as it begins there belongs to the next interval.
    for end in edges[1:].tolist():
        while changes and changes[0][0] < end:
            time, watts = changes.pop(0)
            if watts != store.budget.watts:
                store.grant(float(watts), float(time))
        granted.append(store.granted(end - 1e-3))
    # What was granted before a power fell is not taken back.
    kept = list(itertools.accumulate(granted, max))
    return np.diff(kept, prepend=0.0) + np.diff(trace.harvested(edges))
