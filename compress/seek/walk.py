"""The search itself: solve for the least cost at a loss, make and measure it, go on where it matters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from compress.seek.frontier import Point
from compress.seek.problem import Assignment, Problem
from compress.seek.solver import LOSS, ROOM, solve

LOSSES = (3e-4, 0.3)
"""Predicted loss of the first and the last point that are asked for."""
FIRST = 7
"""Points that are spread over these before any is placed by what others showed."""
Solver: TypeAlias = Callable[[Problem, str, Mapping[str, float]], Assignment | None]
"""Answers as `compress.seek.solver.solve` does."""
CLOSE = 0.03
"""Difference of cost at which two points around a limit count as one."""


@dataclass(frozen=True)
class Wish:
    """What is searched for.

    Attributes:
        minimise: the quantity that is minimised.
        limits: largest values of others.
        drop: points of the metric that may be lost; None without such a limit.
        noise: noise over signal that is allowed.
        evaluations: variants that may be made and measured.
    """

    minimise: str
    limits: Mapping[str, float]
    drop: float | None
    noise: float
    evaluations: int

    def keeps(self, point: Point) -> bool:
        """Tell whether a variant loses no more than allowed."""
        return point.noise <= self.noise if self.drop is None else point.lost <= self.drop


class Walk:
    """Goes from loss to loss along the frontier of a problem.

    Args:
        problem: the problem.
        wish: what is searched for.
        evaluate: makes and measures the variant of an assignment.
        solver: finds the least cost at a loss.
    """

    def __init__(
        self,
        problem: Problem,
        wish: Wish,
        evaluate: Callable[[Assignment], Point],
        solver: Solver = solve,
    ) -> None:
        self._problem, self._wish, self._evaluate, self._solver = problem, wish, evaluate, solver
        self._known: dict[Assignment, Point] = {}
        self._asked: dict[float, Assignment | None] = {}

    @property
    def points(self) -> list[Point]:
        """What was evaluated."""
        return list(self._known.values())

    def go(self) -> None:
        """Evaluate as many variants as the wish allows, or until all that are worth it are known."""
        least = self.least_loss()
        if least is None:
            return
        lowest, highest = LOSSES
        if self._wish.drop is None and self._wish.noise < math.inf:
            highest = min(self._wish.noise, highest)
            lowest = min(lowest, highest / 100)
        elif least > lowest:  # the costs that are allowed call for more loss than is asked for otherwise
            lowest, highest = least, max(highest, 2 * least)
        first = min(FIRST, self._wish.evaluations)
        for number in range(first):
            self._ask(lowest * (highest / lowest) ** (number / max(first - 1, 1)))
        while len(self._known) < self._wish.evaluations:
            between = next(self._gaps(), None)
            if between is None:
                break
            self._ask(between)

    def least_loss(self) -> float | None:
        """Return the least predicted loss at which the limits on costs are kept; None if they never are."""
        chosen = solve(self._problem, LOSS, self._wish.limits)
        return None if chosen is None else self._problem.added(chosen) * ROOM

    def _ask(self, loss: float) -> None:
        """Solve for a predicted loss, and evaluate the answer if it is new."""
        chosen = self._solver(self._problem, self._wish.minimise, {**self._wish.limits, LOSS: loss})
        self._asked[loss] = chosen
        if chosen is not None and chosen not in self._known:
            self._known[chosen] = self._evaluate(chosen)

    def _gaps(self) -> Iterator[float]:
        """Yield losses to ask for between those that were asked for, the most worthwhile first."""
        asked = sorted(self._asked)
        gaps = []
        for low, high in itertools.pairwise(asked):
            before, after = self._asked[low], self._asked[high]
            if before == after or after is None or high / low < 1.01:
                continue
            span = math.inf
            if before is not None:
                costs = [self._known[each].found[self._wish.minimise] for each in (before, after)]
                kept = [self._wish.keeps(self._known[each]) for each in (before, after)]
                span = abs(math.log(costs[0] / costs[1]))
                if self._wish.drop is not None and kept == [True, False]:
                    span = math.inf if span > CLOSE else 0.0
                elif self._wish.drop is not None and not any(kept):
                    span = 0.0
            if span > CLOSE / 4:
                gaps.append((span, math.sqrt(low * high)))
        gaps.sort(reverse=True)
        yield from (loss for _, loss in gaps)


def blocking(problem: Problem, limits: Mapping[str, float]) -> Sequence[str]:
    """Return the limits that no assignment keeps, each with the least value that can be reached."""
    found = []
    for quantity, limit in limits.items():
        best = solve(problem, quantity, {})
        least = problem.cost(quantity, best) if best is not None else math.inf
        if least > limit:
            found.append(f"{quantity}: {least:.4g} at least, {limit:.4g} allowed")
    return found
