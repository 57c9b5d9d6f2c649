"""Samplers beside the mixed-integer program: Optuna's, and those of binary quadratic models."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import compress
from compress.errors import InputError, TrustError
from compress.model import Model
from compress.recipe.wanted import Search
from compress.seek import find
from compress.seek.blind import repaired
from compress.seek.problem import Cell, Decision, Link, Problem
from compress.seek.qubo import Qubo, binary_model, export
from compress.seek.solver import LOSS


def _problem(seed: int, count: int = 4) -> Problem:
    rng = np.random.default_rng(seed)
    decisions = [Decision("weights", f"layer {number}", (32.0, 8.0, 4.0)) for number in range(count)]
    loss = [np.array([0.0, *np.sort(rng.uniform(0, 1, 2))]) for _ in decisions]
    cells = [
        Cell(f"layer {number}", (number, (number + 1) % count), {"energy": rng.uniform(0, 1, (3, 3))})
        for number in range(count)
    ]
    return Problem(decisions, loss, cells, [Link(((0, 1, 1.0), (1, 1, -1.0)), 0.0)])


def _every(problem: Problem) -> list[tuple[int, ...]]:
    return [*itertools.product(*(range(len(each.options)) for each in problem.decisions))]


def test_a_binary_model_is_the_problem() -> None:
    dimod = pytest.importorskip("dimod")
    problem = _problem(1)
    prices = {"energy": 2.0, LOSS: 0.5}
    model = binary_model(problem, prices)

    def energy(chosen: tuple[int, ...]) -> float:
        return float(model.energy({(n, option): int(chosen[n] == option) for n, option in model.variables}))

    for chosen in _every(problem):
        priced = 2 * problem.cost("energy", chosen) + 0.5 * problem.added(chosen)
        if problem.holds(chosen):
            assert energy(chosen) == pytest.approx(priced)
        else:
            assert energy(chosen) > priced
    best = dimod.ExactSolver().sample(model).first.sample
    counts = [sum(best[variable] for variable in best if variable[0] == n) for n in range(4)]
    assert counts == [1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_annealing_keeps_limits_and_the_better_answer_is_kept(seed: int) -> None:
    pytest.importorskip("dwave.samplers")
    problem, qubo = _problem(seed), Qubo()
    sampled = qubo.sample(problem, "energy", {LOSS: 1.0})
    assert sampled is not None
    assert problem.holds(sampled)
    assert problem.added(sampled) <= 1.0 + 1e-6
    kept = [each for each in _every(problem) if problem.holds(each) and problem.added(each) <= 1.0]
    least = min(problem.cost("energy", each) for each in kept)
    found = qubo(problem, "energy", {LOSS: 1.0})
    assert found is not None
    assert problem.cost("energy", found) <= least * 1.003
    assert qubo.gaps[0] == pytest.approx(problem.cost("energy", sampled) / least - 1, abs=3e-3)
    assert "gap" in qubo.notes[0]


def test_a_binary_model_can_be_exported(tmp_path: Path) -> None:
    dimod = pytest.importorskip("dimod")
    problem = _problem(2)
    export(problem, {"energy": 1.0}, tmp_path / "model.bqm")
    with (tmp_path / "model.bqm").open("rb") as file:
        read = dimod.BinaryQuadraticModel.from_file(file)
    assert read == binary_model(problem, {"energy": 1.0})


def test_a_repair_changes_as_little_as_it_can() -> None:
    problem = _problem(3)
    assert repaired(problem, (1, 1, 2, 2)) == (1, 1, 2, 2)
    found = repaired(problem, (1, 0, 2, 2))
    assert problem.holds(found)
    assert sum(one != other for one, other in zip(found, (1, 0, 2, 2), strict=True)) == 1


def test_a_sampler_of_the_user_needs_trust_and_must_be_one() -> None:
    pytest.importorskip("dimod")
    with pytest.raises(TrustError, match="--trust"):
        Qubo("dimod:ExactSolver")
    with pytest.raises(InputError, match=r"no dimod\.Sampler"):
        Qubo("collections:Counter", trust=True)
    problem, own = _problem(0), Qubo("dimod:ExactSolver", trust=True)
    assert own(problem, "energy", {LOSS: 1.0}) is not None
    assert own.notes[0].startswith("dimod:ExactSolver: 1 problem")


def test_a_sampler_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dimod", None)
    with pytest.raises(InputError, match=r"compress-toolkit\[qubo\]"):
        Qubo()


def test_an_unknown_sampler_is_refused(cnn: Model) -> None:
    with pytest.raises(InputError, match="sampler"):
        compress.search(cnn, sampler="genetic")


def test_a_blind_search_that_was_stopped_goes_on_to_the_same_frontier(cnn: Model, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    wanted = Search(hardware="stm32u575", sampler="nsga2", evaluations=4)
    whole = find(cnn, wanted, "accuracy", tmp_path / "journal")
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    (tmp_path / "stopped").write_text("".join(lines[:-2]))
    again = find(cnn, wanted, "accuracy", tmp_path / "stopped")
    assert [each.plan for each in again.evaluated] == [each.plan for each in whole.evaluated]
    assert len(whole.evaluated) == 4
    assert (tmp_path / "stopped").read_text() == (tmp_path / "journal").read_text()


def test_a_search_by_annealing_tells_its_gap(cnn: Model) -> None:
    pytest.importorskip("dwave.samplers")
    found = compress.search(cnn, hardware="stm32u575", sampler="qubo", evaluations=2)
    assert "gap" in found.notes[0]
    assert found.score().notes == list(found.notes)
