"""Whatever comes, the budget is kept, and nothing does better than the offline optimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import InputError
from compress.governor import Budget, Frontier, Option, Replay, Trace, optimum, replay
from compress.governor.budget import DAY

NOTHING = (np.zeros(0), np.zeros(0))


def even(count: int, *, end: float = DAY, harvest: tuple[np.ndarray, np.ndarray] = NOTHING) -> Trace:
    return Trace(np.arange(count) * end / count, 0.0, end, harvest)


def half_as_much_at_noon(count: int, watts: float) -> Trace:
    grants = (np.array([0.0, DAY / 2]), np.array([watts, watts / 2]))
    return Trace(np.arange(count) * DAY / count, 0.0, DAY, NOTHING, grants)


@st.composite
def stories(draw: st.DrawFn) -> tuple[Trace, Frontier, Budget]:
    """A trace, a frontier and a budget, none of which need make sense."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, end = draw(st.integers(1, 100)), draw(st.floats(1.0, 3 * DAY))
    points = draw(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=6))
    frontier = Frontier.of(Option(str(place), *point) for place, point in enumerate(points))
    times = np.sort(rng.random(count) ** draw(st.floats(0.2, 5))) * end
    joules = draw(st.floats(0.05, 20)) * count
    harvest = (np.array([0.0, end / 2]), rng.random(2) * joules / end)
    budget = draw(
        st.sampled_from(
            [
                Budget(watts=joules / end, period_seconds=end / 7),
                Budget(joules=joules, capacity_joules=joules, lasts_seconds=end),
                Budget(joules=joules / 4, capacity_joules=joules / 3, lasts_seconds=DAY),
            ]
        )
    )
    return Trace(times, 0.0, end, harvest if budget.joules else NOTHING), frontier, budget


@settings(max_examples=25, deadline=None)
@given(stories())
def test_no_trace_and_no_frontier_lead_over_the_budget(story: tuple[Trace, Frontier, Budget]) -> None:
    found = replay(*story)
    assert min(step.charge for step in found.steps) >= -1e-9
    assert found.governor.joules <= found.budget_joules * (1 + 1e-9)
    assert found.governor.quality <= found.offline.quality + 1e-6
    assert all(each.quality <= found.offline.quality + 1e-6 for each in found.fixed)
    assert found.offline.joules <= found.budget_joules * (1 + 1e-6)


def _gains(found: Replay) -> tuple[float, float]:
    return found.gain(found.governor), found.gain(found.best_fixed)


def test_between_two_variants_it_mixes_them(frontier: Frontier) -> None:
    governor, fixed = _gains(replay(even(2000), frontier, Budget.parse("10 kJ for 24 h")))
    assert governor > 0.97 > fixed


def test_it_changes_its_mind_seldom(frontier: Frontier) -> None:
    found = replay(even(2000), frontier, Budget.parse("10 kJ for 24 h"))
    assert 10 < found.governor.switches < 150


def test_a_battery_lasts_the_night_once_it_has_seen_one(frontier: Frontier) -> None:
    sun = np.maximum(np.sin((np.arange(24) - 6) / 12 * np.pi), 0.0)
    power = 5000 * sun / sun.sum() / 3600
    today = even(2000, harvest=(np.arange(24) * 3600.0, power))
    week = Trace(
        np.concatenate([today.requests + day * DAY for day in range(3)]),
        0.0,
        3 * DAY,
        (np.arange(72) * 3600.0, np.tile(power, 3)),
    )
    budget = Budget.parse("3 kJ, 60% full, for 24 h")
    governor, fixed = _gains(replay(today, frontier, budget, week))
    assert governor > 0.95
    assert governor > fixed
    assert _gains(replay(today, frontier, budget))[0] < governor


def test_after_days_of_surprises_it_saves_more(frontier: Frontier) -> None:
    """Of two governors with the same mean behind them, the one that saw crowds spends less at first."""
    calm = np.concatenate([np.arange(480) * 180.0 + day * DAY for day in range(6)])
    crowds = [np.sort(np.random.default_rng(day).random(4) * 23) for day in range(6)]
    wild = np.concatenate(
        [
            (day * 24 + hour) * 3600 + np.arange(120) * 30.0
            for day, hours in enumerate(crowds)
            for hour in hours
        ]
    )
    budget, spent = Budget.parse("1 kJ for 24 h"), []
    for past in (calm, np.sort(wild)):
        found = replay(even(480), frontier, budget, Trace(past, 0.0, 6 * DAY))
        spent.append(sum(step.option.joules for step in found.steps[:120] if step.option))
    assert spent[1] < 0.95 * spent[0]


def test_the_future_changes_nothing(frontier: Frontier) -> None:
    """Two traces that are alike until noon are answered alike until noon."""
    morning = np.arange(1000) * DAY / 2000
    quiet = Trace(morning, 0.0, DAY)
    busy = Trace(np.concatenate([morning, DAY / 2 + np.arange(5000) * DAY / 10000]), 0.0, DAY)
    budget = Budget.parse("4 kJ for 24 h")
    first, second = (replay(each, frontier, budget).steps for each in (quiet, busy))
    assert [step.option for step in first] == [step.option for step in second[: len(first)]]


def test_a_power_that_falls_is_kept_to(frontier: Frontier) -> None:
    watts = 4 * 2000 / DAY
    found = replay(half_as_much_at_noon(2000, watts), frontier, Budget(watts=watts, period_seconds=3600))
    assert found.budget_joules == pytest.approx(3 * 2000)
    assert 5900 < found.governor.joules <= found.budget_joules
    spent = [step.option.joules if step.option else 0.0 for step in found.steps]
    assert sum(spent[:1000]) > 1.5 * sum(spent[1000:])


def test_granted_watts_do_not_go_with_a_battery(frontier: Frontier) -> None:
    with pytest.raises(InputError, match="the budget is a battery"):
        replay(half_as_much_at_noon(10, 1.0), frontier, Budget.parse("1 kJ for 24 h"))


def test_what_cannot_be_paid_is_not_answered(frontier: Frontier) -> None:
    found = replay(even(100), frontier, Budget.parse("40.5 J for 24 h"))
    assert found.governor.unanswered == 60
    assert found.governor.quality == pytest.approx(0.4 * 0.7)


def test_the_optimum_is_the_known_one(frontier: Frontier) -> None:
    # Four requests on ten joules: two more joules each from tiny to small, and one of them to large.
    found = optimum(frontier, np.array([4.0]), np.zeros(1), 14.0)
    assert found.joules == pytest.approx(14)
    assert found.quality == pytest.approx(4 * 0.8 + 0.1)
    # What comes after the requests is of no use to them.
    late = optimum(frontier, np.array([4.0, 0.0]), np.array([4.0, 100.0]), 0.0)
    assert late.quality == pytest.approx(4 * 0.7)
