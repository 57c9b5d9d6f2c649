"""The camera on a solar cell of the recipes."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import pytest

from compress.governor import Budget, Frontier, Option, read_trace, replay

RECIPES = Path(__file__).parents[2] / "recipes"
FAMILY = {"pruned-85": (0.790, 6.37e-6), "pruned-75": (0.845, 18.7e-6), "pruned-40": (0.883, 83e-6)}
"""Accuracy and joules as the recipe's run finds them on stm32u575."""


def test_it_lasts_the_day_and_beats_every_single_variant() -> None:
    frontier = Frontier.of(Option(name, *numbers) for name, numbers in FAMILY.items())
    day, week = (read_trace(RECIPES / f"solar_meter_{name}.csv") for name in ("day", "week"))
    found = replay(day, frontier, Budget.parse("150 mJ, 40% full, for 24 h"), week)
    assert found.governor.unanswered == 0
    assert found.gain(found.governor) > 0.97
    assert found.gain(found.best_fixed) < 0.85


def test_the_traces_are_what_their_program_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RECIPES)
    import solar_meter_trace as program

    rows = program.rows(datetime(2026, 6, 8), 1, seed=2)
    assert (RECIPES / "solar_meter_day.csv").read_text().splitlines()[1:] == rows
    sys.modules.pop("solar_meter_trace")
