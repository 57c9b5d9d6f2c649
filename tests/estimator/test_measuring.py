"""Measuring time and energy: what the machine draws at rest is subtracted, repetitions show the spread."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from compress.estimator import measuring, meter
from compress.estimator.measuring import measure, measured
from compress.estimator.meter import Counter, at_rest, counting
from compress.model import Model


@dataclass
class Pretended:
    """Two watts at rest, and more while something runs."""

    more: float = 30.0
    name: str = "a meter"
    least_seconds: float = 0.0
    busy_seconds: float = 0.0

    def read(self) -> tuple[float, ...]:
        return time.perf_counter(), self.busy_seconds

    def joules(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        return 2.0 * (after[0] - before[0]) + self.more * (after[1] - before[1])

    def run(self) -> None:
        start = time.perf_counter()
        time.sleep(0.002)
        self.busy_seconds += time.perf_counter() - start


def model() -> Model:
    return Model(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["": 21]> g (float[4] x) => (float[4] y) { y = Relu(x) }'
        )
    )


@pytest.fixture
def without_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "find_meter", lambda: "not measured: nothing here")


@pytest.mark.usefixtures("without_meter")
def test_without_a_meter_nothing_is_claimed() -> None:
    found = measure(model(), {"x": np.ones(4, np.float32)}, seconds=0.02, repeats=2)
    assert found.seconds > 0 and found.runs >= 2
    assert (found.joules, found.joules_sd) == (None, None)
    assert found.meter == "not measured: nothing here"


def test_what_the_machine_takes_at_rest_is_subtracted() -> None:
    pretended = Pretended()
    found = measured(pretended.run, pretended, seconds=0.02, repeats=3)
    assert found.joules is not None and found.joules_sd is not None
    assert found.joules == pytest.approx(30.0 * found.seconds, rel=0.1)
    assert found.meter == "a meter"
    assert found.runs >= 3 * 5


def test_a_model_that_takes_no_more_than_rest_is_not_measured() -> None:
    pretended = Pretended(more=-10.0)  # far below rest, however late a sleep ends
    found = measured(pretended.run, pretended, seconds=0.01, repeats=2)
    assert (found.joules, found.joules_sd) == (None, None)
    assert found.meter == "not measured: a meter shows no more than at rest"


def test_a_meter_that_fails_meanwhile_measures_nothing() -> None:
    pretended = Pretended(more=math.nan)
    found = measured(pretended.run, pretended, seconds=0.01, repeats=2)
    assert found.joules is None
    assert found.meter == "not measured: a meter could not be read all the time"


def test_a_meter_that_disappears_counts_nothing() -> None:
    class Gone(Pretended):
        def read(self) -> tuple[float, ...]:
            if self.busy_seconds:
                raise FileNotFoundError("BAT0")
            return super().read()

    gone = Gone()
    with counting(gone) as tally:
        gone.busy_seconds = 1.0
        assert math.isnan(tally.joules)


def test_a_long_count_sees_every_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that wraps every 40 ms is read often enough over a longer time."""
    start = time.perf_counter()
    wrapping = Counter("", lambda: [(time.perf_counter() - start) % 0.04], [0.04])
    monkeypatch.setattr(meter, "POLL_SECONDS", 0.005)
    with counting(wrapping) as tally:
        time.sleep(0.2)
        assert tally.joules == pytest.approx(tally.seconds, abs=0.01)


def test_power_at_rest() -> None:
    assert at_rest(Pretended(), 0.01) == pytest.approx(2.0, rel=0.05)
