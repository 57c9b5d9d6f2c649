"""Budgets as people write them."""

from __future__ import annotations

import math

import pytest

from compress.errors import InputError
from compress.governor import Budget
from compress.governor.budget import DAY, parse_seconds
from compress.governor.store import Store


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        ("2 W", Budget(watts=2, period_seconds=60)),
        ("500mW", Budget(watts=0.5, period_seconds=60)),
        ("7200 J/h", Budget(watts=2, period_seconds=3600)),
        ("24 Wh/day", Budget(watts=1, period_seconds=DAY)),
        ("2 W until 18:00", Budget(watts=2, period_seconds=60, until=18 * 3600)),
        ("36 kJ for 8 h", Budget(joules=36e3, capacity_joules=36e3, lasts_seconds=8 * 3600)),
        ("5 Wh until 06:30", Budget(joules=18e3, capacity_joules=18e3, until=6.5 * 3600)),
        (
            "5 Wh, 40% full, for 1 day",
            Budget(joules=7200, capacity_joules=18e3, lasts_seconds=DAY),
        ),
    ],
)
def test_budgets_are_read(written: str, budget: Budget) -> None:
    assert Budget.parse(written) == budget


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("much", "is not a budget; write one such as 2 W"),
        ("2", "is not a budget"),
        ("2 w", "did you mean 'W'"),
        ("2 V", "'V' is not a unit of energy or power; write a budget such as 2 W"),
        ("5 Wh", "does not say how long it must last; write '5 Wh for 24 h'"),
        ("2 W/h", "W is a power already; write '2 W'"),
        ("20 J/fortnight", "'fortnight' is not a unit of time; write one of s, min, h, day"),
        ("0 W", "nothing runs on 0 W"),
        ("5 Wh for 0 h", "nothing runs on 0 h"),
        ("5 Wh until 25:00", "25:00 is not a time of day"),
        ("5 Wh, 140% full, for 8 h", "more than 100% full"),
        ("2 W, 40% full", "only a battery"),
        ("-2 W", "is not a budget"),
        ("nan W", "is not a budget"),
    ],
)
def test_what_is_wrong_with_a_budget_is_said(written: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        Budget.parse(written)
    assert complaint in str(caught.value)


def test_deadlines_are_read() -> None:
    assert parse_seconds("30 ms") == pytest.approx(0.03)
    assert parse_seconds(0.5) == 0.5


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("30", "has no unit"),
        ("30 mm", "not a unit"),
        ("soon", "not a time"),
        (0, "above 0"),
        (-1, "not a time"),
    ],
)
def test_what_is_wrong_with_a_deadline_is_said(written: str | float, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_seconds(written)


def test_a_power_is_granted_period_by_period_and_what_is_left_is_kept() -> None:
    store = Store(Budget.parse("3600 J/h"), start=7200.0)
    store.advance(7200.0)
    assert store.charge == 3600
    store.spend(3000)
    store.advance(7200 + 3599.0)
    assert store.charge == 600
    store.advance(7200 + 3600.0)
    assert (store.charge, store.received) == (4200, 7200)


def test_no_more_is_granted_than_until_the_end() -> None:
    store = Store(Budget.parse("3600 J/h until 0:30"), start=0.0)
    store.advance(0.0)
    assert store.charge == pytest.approx(1800)


def test_another_power_counts_from_then_on() -> None:
    store = Store(Budget.parse("3600 J/h"))
    store.advance(0.0)
    store.grant(0.5, 1800.0)
    store.advance(1800.0)
    assert store.received == pytest.approx(
        3600
    )  # half an hour of either makes less, but nothing is taken back
    store.advance(2 * 3600.0)
    assert store.received == pytest.approx(1800 + 2 * 1800)


def test_a_battery_holds_no_more_than_it_can() -> None:
    store = Store(Budget(joules=50, capacity_joules=100, lasts_seconds=DAY))
    store.advance(1.0, harvested=80)
    assert (store.charge, store.received) == (100, 100)
    assert math.isinf(Store(Budget(watts=1)).budget.capacity_joules)


def test_an_end_comes_again_every_day() -> None:
    budget = Budget.parse("5 Wh until 18:00")
    assert budget.remaining(17 * 3600, 0.0) == 3600
    assert budget.remaining(18 * 3600, 0.0) == DAY
    assert Budget.parse("5 Wh for 8 h").remaining(9 * 3600, start=0.0) == 7 * 3600
