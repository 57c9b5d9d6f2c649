import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compress.recipe.budget import SIZE, UNITS, Budget, Limit, parse
from compress.results import HardwareScore, Latency, Metric, VariantResult

QUANTITY_AND_UNIT = st.sampled_from([(q, unit) for q, units in UNITS.items() for unit in (*units, "%")])


@given(pair=QUANTITY_AND_UNIT, value=st.floats(1e-6, 1e15), space=st.sampled_from(["", " ", "  "]))
def test_a_limit_reads_back_as_written(pair: tuple[str, str], value: float, space: str) -> None:
    quantity, unit = pair
    limit = parse(f"{value!r}{space}{unit}", quantity, UNITS[quantity])
    assert limit == Limit(value, unit)
    assert math.isclose(parse(str(limit), quantity, UNITS[quantity]).value, value, rel_tol=1e-14)


@given(pair=QUANTITY_AND_UNIT, value=st.floats(1e-6, 1e6), original=st.floats(1e-9, 1e9))
def test_what_is_allowed_scales(pair: tuple[str, str], value: float, original: float) -> None:
    limit = Limit(value, pair[1])
    if limit.relative:
        assert math.isclose(limit.allowed(original), original * value / 100)
    else:
        assert limit.allowed(original) == limit.allowed(0) == value * UNITS[pair[0]][pair[1]]


@given(text=st.text(max_size=12))
@example(text="0\r")
def test_any_text_is_a_limit_or_one_line_about_it(text: str) -> None:
    try:
        limit = parse(text, "file", UNITS["file"])
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert limit.unit in {*SIZE, "%"} and limit.value > 0


@pytest.mark.parametrize(
    ("text", "bytes_"), [("1 kB", 1000), ("1KiB", 1024), ("1.5e3 B", 1500), ("2 MiB", 2**21)]
)
def test_sizes(text: str, bytes_: float) -> None:
    assert parse(text, "file", UNITS["file"]).allowed(0) == bytes_


def score(joules: float, dram: float) -> HardwareScore:
    return HardwareScore(
        energy_joules=joules,
        energy_low=joules,
        energy_high=joules,
        energy={},
        dram_bytes=dram,
        bytes_moved={},
        macs=0,
        seconds=0,
    )


def variant(**other: Any) -> VariantResult:
    return VariantResult(name="v", passes=[], status="done", **other)


ORIGINAL = variant(
    file_bytes=1000,
    weight_bytes=800,
    hardware={"a": score(2e-3, 100), "b": score(1.0, 100)},
    metric=Metric(name="accuracy", value=0.9, delta=0),
    latency_seconds=Latency(median=4e-3, runs=5, ratio=1),
)
SMALL = variant(
    file_bytes=400,
    weight_bytes=300,
    hardware={"a": score(1e-3, 50), "b": score(1.0, 90)},
    metric=Metric(name="accuracy", value=0.88, delta=-0.02),
    latency_seconds=Latency(median=2e-3, runs=5, ratio=0.5),
)


def missed(small: VariantResult = SMALL, **limits: Any) -> list[str]:
    return Budget(**limits).missed(small, ORIGINAL)


def test_limits_that_are_kept() -> None:
    assert missed(energy="50%", dram="50 B", file="40%", weights="1 kB", latency="50%", drop="0.02") == []


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"energy": "49%"}, "energy of 1.00 mJ on a is over the limit of 49% of the original's 2.00 mJ"),
        ({"energy": "900 uJ"}, "energy of 1.00 mJ on a is over the limit of 900 uJ"),
        (
            {"energy": "99%", "hardware": "b"},
            "energy of 1.00 J on b is over the limit of 99% of the original's 1.00 J",
        ),
        ({"dram": "49 B"}, "dram of 50 B on a is over the limit of 49 B"),
        ({"file": "0.3 kB"}, "file of 400 B is over the limit of 0.3 kB"),
        ({"weights": "10%"}, "weights of 300 B is over the limit of 10% of the original's 800 B"),
        ({"latency": "1 ms"}, "latency of 2.00 ms is over the limit of 1 ms"),
        ({"latency": "40%"}, "latency of 2.00 ms is over the limit of 40% of the original's 4.00 ms"),
        ({"drop": 0.01}, "drop of 0.02 is over the limit of 0.01"),
        ({"drop": "2%"}, "drop of 0.02 is over the limit of 2% of the original's 0.9"),
    ],
)
def test_limits_that_are_missed(limits: dict[str, Any], complaint: str) -> None:
    assert missed(**limits) == [complaint]


def test_a_drop_is_what_is_worse() -> None:
    better = SMALL.model_copy(update={"metric": Metric(name="accuracy", value=0.95, delta=0.05)})
    assert missed(better, drop=0) == []
    lower = SMALL.model_copy(update={"metric": Metric(name="mse", value=0.95, delta=0.05, better="lower")})
    assert missed(lower, drop=0.04) == ["drop of 0.05 is over the limit of 0.04"]
    broken = SMALL.model_copy(update={"metric": Metric(name="mse", value=math.nan, delta=math.nan)})
    assert len(missed(broken, drop=1)) == 1


def test_rounding_is_not_a_miss() -> None:
    same = SMALL.model_copy(update={"metric": Metric(name="accuracy", value=0.88, delta=0.88 - 0.9)})
    assert missed(same, drop=0.02) == []


def test_latency_is_held_against_the_original_as_timed_in_turn() -> None:
    busy = SMALL.model_copy(update={"latency_seconds": Latency(median=6e-3, runs=5, ratio=0.5)})
    assert missed(busy, latency="50%") == []


def test_what_was_not_measured_is_missed() -> None:
    bare = variant(file_bytes=1)
    assert missed(bare, energy="1 J") == ["energy was not measured, so its limit of 1 J counts as missed"]
    assert len(missed(bare, energy="1 J", latency="1 s", drop=1, dram="1 B", file="1 B")) == 4
