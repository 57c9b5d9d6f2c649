"""What work on this machine costs, and when a variant has saved as much."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compress.engine.ranking import carbon
from compress.estimator import load, spending
from compress.estimator.spending import grams, of_time, payback, total
from compress.recipe.values import Settings
from compress.results import EnergyRatio, HardwareScore, VariantResult

SOME = st.floats(0.001, 1e6)


def score(joules: float, less: float | None = None) -> HardwareScore:
    ratio = None if less is None else EnergyRatio(value=joules, low=0.1, high=2.0, less=less)
    known = {"energy_low": joules, "energy_high": joules, "dram_bytes": 0.0, "macs": 0, "seconds": 1.0}
    return HardwareScore(energy_joules=joules, energy={}, bytes_moved={}, ratio=ratio, **known)


class Meter:
    """One joule at every reading."""

    name, least_seconds, readings = "a meter", 0.0, 0

    def read(self) -> tuple[float, ...]:
        self.readings += 1
        return (float(self.readings),)

    def joules(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        return after[0] - before[0]


def test_work_is_estimated_from_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "_meter", lambda: "not measured: nothing here")
    with spending.spending("waiting and work") as spent:
        time.sleep(0.05)
        sum(range(1_000_000))
    made = spent.made
    watts = load("cpu").package_watts
    assert watts is not None
    assert made.seconds >= 0.05
    assert made.estimated_joules == pytest.approx(watts.value * made.processor_seconds)
    assert (made.measured_joules, made.how, made.meter) == (None, "estimated", "not measured: nothing here")


@pytest.mark.parametrize(("idle", "joules"), [(0.0, 1.0), (1e9, 0.0)])
def test_a_meter_measures_less_what_the_machine_takes_at_rest(
    idle: float, joules: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter()
    monkeypatch.setattr(spending, "_meter", lambda: meter)
    monkeypatch.setattr(spending, "_idle_watts", lambda: idle)
    with spending.spending("work") as spent:
        pass
    assert (spent.made.measured_joules, spent.made.how, spent.made.meter) == (joules, "measured", "a meter")
    assert spent.made.joules == joules


@given(st.lists(st.tuples(SOME, SOME), min_size=1, max_size=5), st.booleans())
def test_parts_add_and_are_measured_only_together(parts: list[tuple[float, float]], lacks: bool) -> None:
    made = [of_time("part", 1.0, seconds, joules, "RAPL") for seconds, joules in parts]
    if lacks:
        made.append(of_time("part", 1.0, 1.0, None, "not measured"))
    whole = total(made, "all")
    assert whole.estimated_joules == pytest.approx(sum(each.estimated_joules for each in made))
    assert whole.estimated_low <= whole.estimated_joules <= whole.estimated_high
    assert whole.measured_joules == (None if lacks else pytest.approx(sum(joules for _, joules in parts)))


@given(SOME, st.floats(1e-6, 1.0), st.floats(0.01, 0.99))
def test_a_variant_has_paid_when_it_has_saved_its_making(seconds: float, before: float, part: float) -> None:
    made = of_time("pass", 1.0, seconds, None, "not measured")
    found = payback(made, score(before * part, less=0.99), score(before))
    assert found is not None and found.inferences is not None and found.sure
    assert found.inferences * (before - before * part) == pytest.approx(made.joules)
    assert found.making == "estimated"


def test_what_saves_nothing_never_pays_and_a_tie_is_not_sure() -> None:
    made = of_time("pass", 1.0, 10.0, 50.0, "RAPL")
    told = [str(payback(made, score(ours, less), score(1.0))) for ours, less in ((1.2, 0.05), (1.2, 0.4))]
    assert told == ["never", "not sure"]
    assert str(payback(made, score(0.95, 0.7), score(1.0))) == "not sure"
    assert str(payback(made, score(0.5, 0.99), score(1.0))) == "100"
    assert payback(made, score(0.5), score(1.0)) is None


@given(SOME, SOME, SOME)
def test_grams_follow_from_joules_and_the_stated_grid(joules: float, grid: float, more: float) -> None:
    assert grams(3.6e6, grid) == pytest.approx(grid)
    assert grams(joules + more, grid) == pytest.approx(grams(joules, grid) + grams(more, grid))


def test_a_run_tells_grams_at_the_grid_of_the_recipe() -> None:
    made = of_time("pass", 1.0, 10.0, 3.6e6, "RAPL")
    variant = VariantResult(name="small", passes=["fold"], status="done", making=[made, made])
    found = carbon([variant], made, 250.0)
    assert (found.grams_per_kwh, found.run_grams) == (250.0, pytest.approx(250.0))
    assert found.making_grams == {"small": pytest.approx(500.0)}


def test_the_grid_must_be_a_number() -> None:
    known = {"version": 1, "model": "m.onnx"}
    assert Settings.model_validate({**known, "carbon": {"grams_per_kwh": 250}}).carbon is not None
    for wrong in ({"grams_per_kwh": -1}, {"grams_per_kwh": float("inf")}, {"grams": 250}, {}):
        with pytest.raises(ValidationError):
            Settings.model_validate({**known, "carbon": wrong})
