"""The solver against brute force over all assignments of small random problems."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compress.seek.loss import UNKNOWN
from compress.seek.problem import Cell, Decision, Link, Problem, gains
from compress.seek.solver import LOSS, solve, stdout_apart


def _problem(seed: int, count: int, *, linked: bool) -> Problem:
    rng = np.random.default_rng(seed)
    sizes = [int(size) for size in rng.integers(2, 4, count)]
    decisions = [
        Decision("channels", f"group {number}", tuple(1 / place for place in range(1, size + 1)))
        for number, size in enumerate(sizes)
    ]
    loss = [np.array([0.0, *rng.uniform(0, 1, size - 1)]) for size in sizes]
    cells = []
    for number in range(count):
        mine = tuple(sorted({number, (number + 1) % count, int(rng.integers(count))}))
        shape = [sizes[each] for each in mine]
        cells.append(
            Cell(
                f"layer {number}",
                mine,
                {"energy": rng.uniform(0, 1, shape), "file": rng.uniform(0, 9, shape)},
            )
        )
    cells.append(Cell("constant", (), {"energy": np.array(0.5), "file": np.array(1.0)}))
    links = [Link(((0, 1, 1.0), (1, 1, -1.0)), 0.0)] if linked else []
    return Problem(decisions, loss, cells, links)


def _every(problem: Problem) -> list[tuple[int, ...]]:
    ranges = [range(len(each.options)) for each in problem.decisions]
    return [chosen for chosen in itertools.product(*ranges) if problem.holds(chosen)]


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.booleans(), st.floats(0.1, 2))
def test_the_least_cost_at_a_loss_is_found(seed: int, count: int, linked: bool, allowed: float) -> None:
    problem = _problem(seed, count, linked=linked)
    found = solve(problem, "energy", {LOSS: allowed})
    assert found is not None
    assert problem.holds(found)
    assert problem.added(found) <= allowed * (1 + 1e-6)
    least = min(problem.cost("energy", each) for each in _every(problem) if problem.added(each) <= allowed)
    assert problem.cost("energy", found) <= least * 1.003


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
@example(934044, 2)  # where more equations than needed misled the solver
def test_the_least_loss_within_two_costs_is_found(seed: int, count: int) -> None:
    problem = _problem(seed, count, linked=False)
    every = _every(problem)
    limits = {
        "energy": float(np.median([problem.cost("energy", each) for each in every])),
        "file": float(np.median([problem.cost("file", each) for each in every])),
    }
    kept = [each for each in every if all(problem.cost(name, each) <= most for name, most in limits.items())]
    found = solve(problem, LOSS, limits)
    assert (found is None) == (not kept)
    if found is not None:
        assert all(problem.cost(name, found) <= most * (1 + 1e-6) for name, most in limits.items())
        assert problem.added(found) <= min(problem.added(each) for each in kept) + 1e-6


def test_what_cannot_be_kept_has_no_solution() -> None:
    problem = _problem(3, 3, linked=False)
    least = min(problem.cost("energy", each) for each in _every(problem))
    assert solve(problem, "energy", {"file": 0.0}) is None
    assert solve(problem, "energy", {}) is not None
    assert problem.cost("energy", solve(problem, "energy", {}) or ()) == pytest.approx(least, rel=1e-3)


def test_of_choices_that_cost_the_same_the_one_that_loses_less_is_taken() -> None:
    decision = Decision("weights", "layer", (32.0, 8.0, 4.0))
    cell = Cell("layer", (0,), {"energy": np.array([2.0, 1.0, 1.0])})
    problem = Problem([decision], [np.array([0.0, 0.01, 0.2])], [cell])
    assert solve(problem, "energy", {LOSS: 0.3}) == (1,)


def test_an_option_gains_only_where_it_costs_less_than_all_before_it() -> None:
    cell = Cell("layer", (0, 1), {"energy": np.array([[3.0, 2.0], [3.0, 1.0], [3.0, 1.0]])})
    assert gains([cell], ["energy"], 0, 1)
    assert not gains([cell], ["energy"], 0, 2)
    assert gains([cell], ["energy"], 1, 1)


def test_small_losses_are_told_apart_beside_what_is_never_chosen() -> None:
    decisions = [Decision("weights", f"layer {place}", (32.0, 8.0, 4.0)) for place in range(3)]
    losses = [np.array([3e-5, 1e-5, UNKNOWN]) for _ in decisions]
    problem = Problem(decisions, losses, [])
    assert solve(problem, LOSS, {}) == (1, 1, 1)


def test_what_native_code_prints_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    print("before", flush=True)
    with stdout_apart():
        ctypes.CDLL(None).puts(b"native")
    print("after", flush=True)
    found = capfd.readouterr()
    assert found.out == "before\nafter\n"
    assert "native" in found.err
