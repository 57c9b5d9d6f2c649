"""Variants that run as one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compress
from compress.errors import InputError, LimitError, ModelError
from compress.governor import Option
from compress.governor.warm import Warm

FEEDS = {"x": np.zeros((1, 4), np.float32)}
PLACES = ("tiny", "small", "large")


@dataclass
class Clock:
    """A clock that goes on by a second with each look."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@dataclass
class Counter:
    """A meter that says what it is told to."""

    says: list[Any]
    name: str = "counter"
    least_seconds: float = 1.0
    reads: int = field(default=0)

    def read(self) -> tuple[float, ...]:
        self.reads += 1
        if self.says[0] is OSError:
            raise OSError("gone")
        return (float(self.reads),)

    def joules(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        return float(self.says.pop(0) if len(self.says) > 1 else self.says[0])


@pytest.fixture
def govern(run_folder: Path) -> Callable[..., compress.Governor]:
    """A governor on an hour's budget, without a meter."""

    def made(budget: str = "100 kJ for 1 h", **settings: Any) -> compress.Governor:
        settings = {"meter": None, "clock": Clock(), **settings}
        return compress.Governor(run_folder, budget, **settings)

    return made


def answers(governor: compress.Governor, count: int = 1) -> list[str]:
    """The variants that answer, as their outputs tell."""
    return [PLACES[int(governor.run(FEEDS)[0][0, 0])] for _ in range(count)]


def test_the_best_variant_answers_where_joules_abound(govern: Callable[..., compress.Governor]) -> None:
    governor = govern()
    assert set(answers(governor, 30)[20:]) == {"large"}
    assert governor.last is not None
    assert governor.last.option.name == "large"
    assert not governor.last.measured
    assert "joules estimated" in repr(governor)


def test_the_budget_is_kept_to_the_last_joule(govern: Callable[..., compress.Governor]) -> None:
    governor, spent = govern("50 J for 1 h"), 0.0
    with pytest.raises(LimitError, match=r"the cheapest variant, tiny, takes 1\.00 J; try again later"):
        for _ in range(100):
            governor.run(FEEDS)
            assert governor.last is not None
            spent += governor.last.joules
    assert 48 <= spent <= 50


def test_the_deadline_is_kept(govern: Callable[..., compress.Governor]) -> None:
    assert "large" not in answers(govern(deadline="5 ms"), 30)
    with pytest.raises(InputError, match=r"no variant meets the deadline of 10\.0 µs"):
        govern(deadline="10 us")


def test_a_variant_that_misses_the_deadline_rests(
    govern: Callable[..., compress.Governor], monkeypatch: Any
) -> None:
    governor, seconds = govern(deadline=0.01), [0.001] * 30 + [0.02] + [0.001] * 40
    monkeypatch.setattr(governor._gauge, "stop", lambda: (seconds.pop(0), None))
    assert answers(governor, 31)[-1] == "large"
    after = answers(governor, 40)
    assert "large" not in after[:16]
    assert "large" in after[17:]


def test_measured_joules_take_the_place_of_estimates(govern: Callable[..., compress.Governor]) -> None:
    governor = govern("20 kJ for 1 h", meter=Counter([30.0]))
    answers(governor, 60)
    assert governor.last is not None
    assert governor.last.measured
    assert governor.last.joules == 30
    assert max(option.joules for option in governor.options) > 20


@pytest.mark.parametrize("failure", [OSError, float("nan"), -1.0])
def test_the_cheapest_variant_answers_while_the_meter_fails(
    govern: Callable[..., compress.Governor], failure: Any
) -> None:
    meter = Counter([8.0])
    governor = govern(meter=meter)
    assert answers(governor, 30)[-1] == "large"
    meter.says = [failure]
    assert answers(governor, 10)[1:] == ["tiny"] * 9
    assert "counter" in repr(governor)
    meter.says = [8.0]
    assert "large" in answers(governor, 30)


def test_a_meter_that_stands_still_is_noticed(govern: Callable[..., compress.Governor]) -> None:
    governor = govern(meter=Counter([0.0], least_seconds=0.0))
    assert answers(governor, 5)[1:] == ["tiny"] * 4
    assert "stands still; estimated" in repr(governor)
    assert governor.last is not None
    assert governor.last.joules == 1.0


def test_harvest_pays(govern: Callable[..., compress.Governor]) -> None:
    governor = govern("1 kJ, 0% full, for 1 h")
    with pytest.raises(LimitError):
        governor.run(FEEDS)
    governor.harvested(500.0)
    assert answers(governor)


def test_a_switch_is_told(govern: Callable[..., compress.Governor]) -> None:
    seen: list[Option] = []
    governor = govern(on_switch=seen.append)
    names = answers(governor, 30)
    changes = [name for place, name in enumerate(names) if not place or name != names[place - 1]]
    assert [each.name for each in seen] == changes


def test_sessions_stay_warm_within_the_limit(run_folder: Path) -> None:
    opened: list[str] = []

    def opener(path: Path, threads: int) -> Any:
        opened.append(path.stem)

    files = [run_folder / f"{name}.onnx" for name in PLACES]
    warm = Warm(2.5 * files[0].stat().st_size, opener=opener)
    for place in (0, 1, 0, 2, 0, 1):
        warm.get(files[place])
    assert opened == ["tiny", "small", "large", "small"]
    assert len(warm) == 2
    with pytest.raises(ModelError, match="No such file"):
        warm.get(run_folder / "gone.onnx")


def test_options_need_no_folder_but_files(run_folder: Path) -> None:
    governor = compress.Governor([Option("a", 0.5, 1.0)], "1 kW", meter=None)
    with pytest.raises(InputError, match="a has no file"):
        governor.run(FEEDS)


def test_history_and_replays_may_be_files(govern: Callable[..., compress.Governor], tmp_path: Path) -> None:
    rows = "".join(f"{hour}:00,60\n" for hour in range(24))
    (tmp_path / "day.csv").write_text(f"time,requests\n{rows}")
    found = govern("7 kJ for 24 h", history=tmp_path / "day.csv").replay(tmp_path / "day.csv")
    assert found.requests == 24 * 60
    assert found.gain(found.governor) > 0.95
