"""Operating points: energy a V^2 + L V t, and the cheapest point that meets a deadline."""

from __future__ import annotations

import mlperf_tiny
import pytest

from compress.errors import HardwareError
from compress.estimator import load
from compress.estimator.hardware import Quantity
from compress.estimator.operating import compare_points


def test_a_point_scales_energy_rates_and_leakage() -> None:
    base, fast = load("gap9"), load("gap9").at("0.8 V")
    volts, clock = 0.8 / 0.65, 370 / 240
    unit, scaled = base.arithmetic["int8"], fast.arithmetic["int8"]
    assert scaled.pj_per_mac.value == pytest.approx(unit.pj_per_mac.value * volts**2)
    assert scaled.macs_per_second.value == pytest.approx(unit.macs_per_second.value * clock)
    assert base.leakage_watts and fast.leakage_watts
    assert fast.leakage_watts.value == pytest.approx(base.leakage_watts.value * volts)
    assert fast.memories[0] == base.memories[0]  # flash is outside the chip
    assert fast.at("0.65 V").arithmetic["int8"].pj_per_mac.value == pytest.approx(unit.pj_per_mac.value)


def test_slow_and_steady_wins_until_the_deadline_is_missed() -> None:
    model = mlperf_tiny.image_classification()
    relaxed = compare_points(model, "gap9", deadline_seconds=0.01)
    assert [point.name for point in relaxed] == ["0.65 V", "0.8 V"]
    seconds = {point.name: point.estimate.total.seconds for point in relaxed}
    tight = compare_points(model, "gap9", deadline_seconds=(seconds["0.65 V"] + seconds["0.8 V"]) / 2)
    assert [(point.name, point.meets) for point in tight] == [("0.8 V", True), ("0.65 V", False)]


def test_idle_power_is_paid_until_the_deadline() -> None:
    idle = Quantity(value=0.001, tag="assumed", scope="chip", source="leakage")
    profile = load("gap9").model_copy(update={"idle_watts": idle})
    point = compare_points(mlperf_tiny.anomaly_detection(), profile, deadline_seconds=1.0)[0]
    assert point.idle_joules == pytest.approx(0.001, rel=0.01)


def test_points_that_do_not_exist() -> None:
    with pytest.raises(HardwareError, match="did you mean"):
        load("gap9").at("0.6 V")
    with pytest.raises(HardwareError, match="no operating points"):
        compare_points(mlperf_tiny.anomaly_detection(), "tpu-v4i")
