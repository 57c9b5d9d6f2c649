"""The same problem as a binary quadratic model (QUBO), which annealers, also quantum ones, sample.

Of every option of every decision, a binary variable tells whether it is chosen. A penalty, as small as it may
be, keeps one of each decision's; what cells of more than two decisions cost is fitted by pairs. A limit
enters by its price, which is bisected outside: only assignments on the convex hull are found so, and then
improved one decision at a time. The mixed-integer program answers the same question, and the better counts.
"""

from __future__ import annotations

import importlib
import itertools
import math
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from compress.errors import InputError, blame, writing
from compress.seek.blind import UNUSABLE, repaired
from compress.seek.extras import needed
from compress.seek.problem import Assignment, Cell, Link, Problem, Table
from compress.seek.solver import LOSS, solve
from compress.source.reference import require_trust

Prices: TypeAlias = Mapping[str, float]
"""What one unit of a quantity weighs."""
PENALTY = 1.5
"""Penalty of a decision without exactly one option, over what its second-best option and pairs can gain."""
STEPS = 16
"""Prices that are tried."""
RANGE = (1e-4, 1e4)
"""Least and largest price of what is allowed, over the cost of the original."""
LOCAL = {"num_reads": 10, "num_sweeps": 1000, "seed": 0}
"""How annealing on this machine samples."""
ROUNDING = 1 + 1e-6
"""What a limit allows for rounding."""


class Qubo:
    """Solves problems by sampling binary quadratic models, and compares with the mixed-integer program.

    Args:
        sampler: ``qubo`` for annealing on this machine, or ``module:Class`` of a `dimod.Sampler`.
        trust: whether code that the user names may run.

    Raises:
        InputError: a package is not installed, or there is no such sampler.
        TrustError: a class is named and `trust` is not given.
    """

    def __init__(self, sampler: str = "qubo", *, trust: bool = False) -> None:
        dimod = needed("dimod", "qubo")
        self._settings: Mapping[str, Any] = {}
        if sampler == "qubo":
            self._sampler = needed("dwave.samplers", "qubo").SimulatedAnnealingSampler()
            self._settings = LOCAL
        else:
            require_trust(trust, f"sampler {sampler}: its code would run")
            module, _, name = sampler.partition(":")
            with blame(f"sampler {sampler}: cannot be made", InputError):
                self._sampler = getattr(importlib.import_module(module), name)()
            if not isinstance(self._sampler, dimod.Sampler):
                raise InputError(f"sampler {sampler}: is no dimod.Sampler")
        self._name = sampler
        self.gaps: list[float] = []
        """Cost of each answer over the program's, less one; infinite where none kept the limits."""

    @property
    def notes(self) -> list[str]:
        """How the answers compare with those of the mixed-integer program."""
        if not self.gaps:
            return []
        better = sum(gap < 0 for gap in self.gaps)
        return [
            f"{self._name}: {len(self.gaps)} problems, gap to the mixed-integer program's answer "
            f"{statistics.median(self.gaps):.2%} in the median, {max(self.gaps):.2%} at most; "
            f"its own answer was better and kept {better} times"
        ]

    def __call__(self, problem: Problem, minimise: str, limits: Mapping[str, float]) -> Assignment | None:
        """Return the better of both answers; None if nothing keeps the limits. See `solve`."""
        exact = solve(problem, minimise, limits)
        if exact is None:
            return None
        sampled = self.sample(problem, minimise, limits)
        if sampled is None:
            self.gaps.append(math.inf)
            return exact
        costs = [_value(problem, minimise, each) for each in (exact, sampled)]
        gap = (costs[1] - costs[0]) / abs(costs[0] or 1.0)
        self.gaps.append(gap)
        return sampled if gap < 0 else exact

    def sample(self, problem: Problem, minimise: str, limits: Mapping[str, float]) -> Assignment | None:
        """Return the best sampled assignment that keeps the limits; None if none did."""
        best: Assignment | None = None
        first = tuple(0 for _ in problem.decisions)
        unit = {minimise: 1 / (abs(_value(problem, minimise, first)) or 1.0)}
        low, high = (math.log(price) for price in RANGE)
        for _ in range(STEPS if limits else 1):
            middle = (low + high) / 2
            prices = {**unit, **{name: math.exp(middle) / max(most, 1e-12) for name, most in limits.items()}}
            model = binary_model(problem, prices)
            kept = [each for each in self._answers(problem, model) if _keeps(problem, limits, each)]
            low, high = (low, middle) if kept else (middle, high)
            for each in kept:
                if best is None or _value(problem, minimise, each) < _value(problem, minimise, best):
                    best = each
        return None if best is None else _improved(problem, minimise, limits, best)

    def _answers(self, problem: Problem, model: Any) -> Iterator[Assignment]:
        """Yield the best answer of a sampler, conditions between decisions kept."""
        sample = self._sampler.sample(model, **self._settings).first.sample
        chosen = []
        for number, decision in enumerate(problem.decisions):
            known = [place for place in range(len(decision.options)) if (number, place) in sample]
            linear = {place: model.get_linear((number, place)) for place in known}
            chosen.append(min(known, key=lambda place: (-sample[number, place], linear[place])))
        yield repaired(problem, tuple(chosen))


def export(problem: Problem, prices: Prices, path: Path) -> None:
    """Write the binary quadratic model, as `dimod.BinaryQuadraticModel.from_file` reads it."""
    with writing(path), binary_model(problem, prices).to_file() as model, path.open("wb") as file:
        shutil.copyfileobj(model, file)


def binary_model(problem: Problem, prices: Prices) -> Any:
    """Return the binary quadratic model of the sum of quantities by their prices.

    Variables are (number of the decision, number of the option).
    """
    model = needed("dimod", "qubo").BinaryQuadraticModel("BINARY")
    alone = [np.asarray(losses, float) * prices.get(LOSS, 0.0) for losses in problem.loss]
    pairs: dict[tuple[int, int], Table] = {}
    for cell in problem.cells:
        table = sum(
            (cell.tables[name] * price for name, price in prices.items() if name != LOSS),
            np.zeros(tuple(len(problem.decisions[number].options) for number in cell.decisions)),
        )
        model.offset += float(table.mean())
        for numbers, effect in _effects(cell.decisions, table):
            if len(numbers) == 1:
                alone[numbers[0]] = alone[numbers[0]] + effect
            elif len(numbers) == 2:
                pairs[numbers[0], numbers[1]] = pairs.get((numbers[0], numbers[1]), 0.0) + effect
    usable = [np.flatnonzero(losses < UNUSABLE).tolist() or [0] for losses in problem.loss]
    gain = [0.0] * len(alone)
    for (first, second), table in pairs.items():
        table = table[np.ix_(usable[first], usable[second])]
        gain[first] += float(np.ptp(table))
        gain[second] += float(np.ptp(table))
        for (row, a), (column, b) in itertools.product(enumerate(usable[first]), enumerate(usable[second])):
            model.add_quadratic((first, a), (second, b), float(table[row, column]))
    penalties = []
    for number, costs in enumerate(alone):
        ranked = np.sort(costs[usable[number]]) - costs[usable[number]].min()
        above = ranked[ranked > 0]
        penalty = PENALTY * (float(above[0]) if above.size else 1e-6) + PENALTY * gain[number]
        penalties.append(penalty)
        for option in usable[number]:
            model.add_linear((number, option), float(costs[option] - costs[usable[number]].min()) - penalty)
        for one, other in itertools.combinations(usable[number], 2):
            model.add_quadratic((number, one), (number, other), 2 * penalty)
        model.offset += penalty + float(costs[usable[number]].min())
    for link in problem.links:
        _forbid(model, link, penalties)
    return model


def _forbid(model: Any, link: Link, penalties: Sequence[float]) -> None:
    """Penalise what breaks a condition between two options; answers are held to longer ones afterwards."""
    if len(link.terms) != 2 or not all(
        (number, option) in model.variables for number, option, _ in link.terms
    ):
        return
    (number, option, weight), (other, second, against) = link.terms
    one, two = (number, option), (other, second)
    penalty = max(penalties[number], penalties[other])
    if weight > link.most >= weight + against:  # the first asks for the second
        model.add_linear(one, penalty)
        model.add_quadratic(one, two, -penalty)
    elif weight + against > link.most >= max(weight, against):  # they exclude each other
        model.add_quadratic(one, two, penalty)


def _effects(numbers: tuple[int, ...], table: Table) -> Iterator[tuple[tuple[int, ...], Table]]:
    """Yield the effect of every decision and every pair: the least-squares fit of a table by pairs."""
    left = table - table.mean()
    for axes in itertools.chain(*(itertools.combinations(range(len(numbers)), size) for size in (1, 2))):
        others = tuple(axis for axis in range(len(numbers)) if axis not in axes)
        effect = left.mean(others, keepdims=True)
        left = left - effect
        yield tuple(numbers[axis] for axis in axes), effect.squeeze(others)


def _value(problem: Problem, quantity: str, chosen: Assignment) -> float:
    return problem.added(chosen) if quantity == LOSS else problem.cost(quantity, chosen)


def _keeps(problem: Problem, limits: Mapping[str, float], chosen: Assignment) -> bool:
    return problem.holds(chosen) and all(
        _value(problem, name, chosen) <= most * ROUNDING for name, most in limits.items()
    )


def _improved(problem: Problem, minimise: str, limits: Mapping[str, float], chosen: Assignment) -> Assignment:
    """Change one decision after another for as long as that costs less and keeps the limits."""
    around: list[list[Cell]] = [[] for _ in problem.decisions]
    for cell in problem.cells:
        for number in cell.decisions:
            around[number].append(cell)

    def part(number: int, quantity: str, chosen: Assignment) -> float:
        if quantity == LOSS:
            return float(problem.loss[number][chosen[number]])
        return sum(cell.of(quantity, chosen) for cell in around[number])

    changed = True
    while changed:
        changed = False
        for number, decision in enumerate(problem.decisions):
            costs: dict[Assignment, float] = {}
            for option in range(len(decision.options)):
                other = (*chosen[:number], option, *chosen[number + 1 :])
                costs[other] = part(number, minimise, other)
            for other in sorted(costs, key=lambda each: costs[each]):
                if costs[other] >= costs[chosen] * (1 - 1e-9):
                    break
                if _keeps(problem, limits, other):
                    chosen, changed = other, True
                    break
    return chosen
