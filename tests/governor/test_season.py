"""Forecasts from the days before."""

from __future__ import annotations

import numpy as np
import pytest

from compress.governor.budget import DAY
from compress.governor.plan import allowance
from compress.governor.season import Season

HOUR = 3600.0


def _fed(days: int, level: float = 1.0) -> Season:
    """Ten events at nine, twenty at ten and forty at noon, each day; then a nine `level` times as busy."""
    season = Season()
    for day in range(days):
        for hour, count in ((9, 10), (10, 20), (12, 40)):
            for place in range(count):
                season.add((24 * day + hour + place / count) * HOUR, 1.0)
    for place in range(round(10 * level)):
        season.add((24 * days + 9 + place / (10 * level)) * HOUR, 1.0)
    season.add((24 * days + 10) * HOUR, 0.0)
    return season


def test_today_is_expected_to_be_like_the_days_before() -> None:
    ends, amounts = _fed(3).ahead(5 * HOUR)
    assert ends.tolist() == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 5 * HOUR]
    assert amounts[:3] == pytest.approx([20, 20, 60], rel=0.1)
    assert amounts[-1] == amounts[2]


def test_a_busy_hour_makes_the_next_one_expected_busier_but_not_the_next_day() -> None:
    busy, usual = _fed(3, level=3.0), _fed(3)
    assert busy.ahead(HOUR)[1][-1] > 1.2 * usual.ahead(HOUR)[1][-1]
    later = [np.diff(each.ahead(DAY)[1])[1:-1] for each in (busy, usual)]
    assert later[0] == pytest.approx(later[1], abs=2.0)


def test_on_the_first_day_the_mean_so_far_is_expected_unless_something_else_is_said() -> None:
    steady, hopeless = Season(), Season(unseen=0.0)
    for minute in range(180):
        steady.add(60.0 * minute, 1.0)
        hopeless.add(60.0 * minute, 1.0)
    assert steady.ahead(10 * HOUR)[1][-1] == pytest.approx(600, rel=0.05)
    assert hopeless.ahead(10 * HOUR)[1][-1] == pytest.approx(0.0, abs=1e-6)


def test_surprises_widen_what_is_held_back() -> None:
    season = _fed(3)
    assert season.hourly_variance < 20
    for place in range(400):
        season.add((72 + 15 + place / 400) * HOUR, 1.0)
    season.add((72 + 17) * HOUR, 0.0)
    assert season.hourly_variance > 1000


def test_the_plan_is_even_where_it_can_be() -> None:
    requests = np.array([10.0, 20.0, 30.0])
    assert allowance(60.0, np.zeros(3), requests) == pytest.approx(2.0)


def test_the_plan_spends_no_joule_before_it_is_there() -> None:
    requests, income = np.array([10.0, 20.0]), np.array([0.0, 100.0])
    assert allowance(10.0, income, requests) == pytest.approx(1.0)


def test_the_plan_spends_what_would_overflow() -> None:
    requests, income = np.array([10.0, 100.0]), np.array([80.0, 80.0])
    even = (20 + 80) / 100
    assert allowance(20.0, income, requests, capacity=50.0) == pytest.approx(5.0)
    assert allowance(20.0, income, requests) == pytest.approx(even)


def test_scenarios_are_planned_at_once() -> None:
    income, requests = np.array([0.0, 100.0, 100.0]), np.array([[5.0, 9.0, 30.0], [50.0, 60.0, 70.0]])
    for capacity in (30.0, np.inf):
        alone = [float(allowance(40.0, income, each, capacity)) for each in requests]
        assert allowance(40.0, income, requests, capacity).tolist() == alone


def test_a_store_in_debt_allows_nothing() -> None:
    assert allowance(-5.0, np.zeros(1), np.ones(1)) == 0.0
