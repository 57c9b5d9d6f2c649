from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import units


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (0, "J", "0 J"),
        (1.234e-5, "J", "12.3 µJ"),
        (9.996e-4, "J", "1.00 mJ"),
        (999.6, "J", "1.00 kJ"),
        (0.0128, "s", "12.8 ms"),
        (512, "B", "512 B"),
        (0.4, "B", "0 B"),
        (999_999, "B", "1.00 MB"),
        (-2.5e-3, "s", "−2.50 ms"),
        (math.inf, "J", "∞ J"),
        (math.nan, "J", "–"),
    ],
)
def test_si_writes_three_digits_and_a_prefix(value: float, unit: str, written: str) -> None:
    assert units.si(value, unit) == written


@given(st.floats(min_value=1e-17, max_value=1e14))
def test_si_is_the_value_within_half_a_percent_and_reads_short(value: float) -> None:
    mantissa, unit = units.si(value, "J").split()
    power = {letter: power for power, letter in units.PREFIXES.items()}[unit.removesuffix("J")]
    assert float(mantissa) * 10.0**power == pytest.approx(value, rel=0.0051)
    assert len(mantissa) <= 4


def test_ratio_keeps_two_digits_at_every_size() -> None:
    assert [units.ratio(value, 100) for value in (3.44, 27.1, 100, 1234)] == [
        "0.034×",
        "0.27×",
        "1.00×",
        "12×",
    ]
    assert units.ratio(1, 0) == ""
    assert units.ratio(math.inf, 1) == ""


def test_signs_and_decibels() -> None:
    assert [units.signed(value) for value in (0.0, 0.0123, -0.0028)] == ["±0", "+0.012", "−0.0028"]
    assert [units.decibels(value) for value in (31.24, -2.0, math.inf)] == ["31.2 dB", "−2.0 dB", "∞ dB"]
    assert [units.number(value) for value in (0.975, 1234.5, -math.inf)] == ["0.9750", "1234", "−∞"]


def test_a_cosine_below_one_is_never_written_as_one() -> None:
    assert [units.cosine(value) for value in (1.0, 0.999999, 0.99951)] == ["1.0000", ">0.9999", "0.9995"]


def test_a_cost_is_energy_with_its_range_traffic_and_time() -> None:
    written = units.cost(7.38e-5, 7.2e-5, 7.6e-5, 106e3, 1.2e-3)
    assert written == "73.8 µJ (72.0 µJ to 76.0 µJ), 106 kB of DRAM traffic, 1.20 ms"


def test_one_thing_is_not_in_the_plural() -> None:
    assert [units.count(number, "layer") for number in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
    assert units.count(3, "batch", "batches") == "3 batches"
