"""The least cost at a loss, or the least loss at a cost: a mixed-integer linear program.

Of every option of every decision, a binary variable tells whether it is chosen; one of each decision's is.
Of every entry of a cell's table, a continuous variable does, and these add up to the binary ones along every
axis of the table: so a cost that several decisions determine together stays exact, and the program linear.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from scipy import optimize, sparse

from compress.errors import LimitError
from compress.seek.problem import Assignment, Problem, Table

SECONDS = 20.0
"""Time that one solution may take; then the best found so far counts."""
GAP = 1e-4
"""How far from the bound, relative to it, a solution may be."""
TIE = 1e-3
"""What all loss that is allowed weighs beside the largest cost of one choice."""
HOPELESS, FINEST = 1e4, 1e-2
"""Loss from which on more makes no difference, and what counts as one: HiGHS stops within 1e-6 of that."""
ROOM = 1 + 1e-7
"""What a limit allows for rounding: a choice that meets it exactly keeps it."""
LOSS = "loss"
"""How the predicted loss is called among the quantities."""


def solve(problem: Problem, minimise: str, limits: Mapping[str, float]) -> Assignment | None:
    """Return the options with the least of one quantity within limits; None if there are none.

    Args:
        problem: the problem.
        minimise: a quantity that cells have, or `LOSS`.
        limits: the largest allowed value of others.

    Raises:
        LimitError: the time was over before any solution was found.
    """
    program = _Program(problem)
    costs = program.row(minimise)
    rows, most = list(program.equalities), [(bound, bound) for bound in program.bounds]
    for link in problem.links:
        rows.append({program.column[number, option]: weight for number, option, weight in link.terms})
        most.append((-math.inf, link.most))
    for quantity, limit in limits.items():
        row = program.row(quantity)
        largest = max((abs(weight) for weight in row.values()), default=0.0) or 1.0
        scale = max(abs(limit), largest * 1e-6)
        # An option that alone breaks a limit is out; far larger coefficients would only spoil the scaling.
        rows.append({column: min(weight / scale, 10.0) for column, weight in row.items()})
        most.append((-math.inf, limit / scale * ROOM))
    objective = np.zeros(program.size)
    objective[list(costs)] = list(costs.values())
    if minimise == LOSS:  # small losses count beside those of what is never to be chosen
        objective = np.minimum(objective, HOPELESS) / FINEST
    else:
        objective /= np.abs(objective).max() or 1.0
    if minimise != LOSS and LOSS in limits:  # of choices that cost the same, the one that loses less
        losses = program.row(LOSS)
        objective[list(losses)] += np.array([*losses.values()]) * (TIE / max(limits[LOSS], 1e-9))
    with stdout_apart():
        found = optimize.milp(
            objective,
            integrality=np.arange(program.size) < program.binaries,
            bounds=optimize.Bounds(0, 1),
            constraints=optimize.LinearConstraint(_matrix(rows, program.size), *np.array(most).T),
            options={"time_limit": SECONDS, "mip_rel_gap": GAP},
        )
    if found.x is None:
        if found.status == 1:
            raise LimitError(f"no choice was found within {SECONDS:.0f} s; offer fewer choices")
        return None
    return program.assignment(found.x)


@contextmanager
def stdout_apart() -> Iterator[None]:
    """Send what native code writes to stdout to stderr: HiGHS leaves a debugging line there now and then."""
    if os.name != "posix":
        yield
        return
    flush = ctypes.CDLL(None).fflush
    flush(None)
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


class _Program:
    """The variables of a problem and the equations between them."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.column = {
            (number, option): place
            for place, (number, option) in enumerate(
                (number, option)
                for number, decision in enumerate(problem.decisions)
                for option in range(len(decision.options))
            )
        }
        self.binaries = self.size = len(self.column)
        self.equalities: list[dict[int, float]] = [
            {self.column[number, option]: 1.0 for option in range(len(decision.options))}
            for number, decision in enumerate(problem.decisions)
        ]
        self.bounds = [1.0] * len(self.equalities)
        self._starts: list[int] = []
        for cell in problem.cells:
            self._starts.append(self.size)
            if len(cell.decisions) > 1:
                self._enter(cell.decisions)

    def _enter(self, decisions: tuple[int, ...]) -> None:
        """Add the variables of a table, whose sums along every axis are those of the decision.

        The last sum of a further axis follows from the others. Stated all the same, HiGHS 1.12's presolve
        once took a far worse choice for the best one.
        """
        shape = tuple(len(self._problem.decisions[number].options) for number in decisions)
        places = np.arange(math.prod(shape)).reshape(shape) + self.size
        self.size += places.size
        for axis, number in enumerate(decisions):
            for option in range(shape[axis] - bool(axis)):
                row = dict.fromkeys(places.take(option, axis).reshape(-1).tolist(), 1.0)
                self.equalities.append({**row, self.column[number, option]: -1.0})
                self.bounds.append(0.0)

    def row(self, quantity: str) -> dict[int, float]:
        """Return what every variable adds to a quantity; constants, which no decision touches, are spread."""
        row: dict[int, float] = {}

        def add(column: int, weight: float) -> None:
            row[column] = row.get(column, 0.0) + weight

        if quantity == LOSS:
            for number, losses in enumerate(self._problem.loss):
                for option, loss in enumerate(losses):
                    add(self.column[number, option], float(loss))
            return row
        for cell, start in zip(self._problem.cells, self._starts, strict=True):
            table: Table = cell.tables[quantity]
            if not cell.decisions:  # each decision chooses one option: the first one's bear what is constant
                for option in range(len(self._problem.decisions[0].options)):
                    add(self.column[0, option], float(table))
            elif len(cell.decisions) == 1:
                for option, cost in enumerate(table):
                    add(self.column[cell.decisions[0], option], float(cost))
            else:
                for place, cost in enumerate(table.reshape(-1)):
                    add(start + place, float(cost))
        return row

    def assignment(self, values: np.ndarray) -> Assignment:
        """Return the chosen options."""
        options = [len(decision.options) for decision in self._problem.decisions]
        return tuple(
            max(range(count), key=lambda option: values[self.column[number, option]])
            for number, count in enumerate(options)
        )


def _matrix(rows: list[dict[int, float]], size: int) -> sparse.csr_array:
    counts = [len(row) for row in rows]
    where = np.repeat(np.arange(len(rows)), counts)
    columns = np.fromiter((column for row in rows for column in row), np.int64, sum(counts))
    weights = np.fromiter((weight for row in rows for weight in row.values()), float, sum(counts))
    return sparse.csr_array((weights, (where, columns)), shape=(len(rows), size))
