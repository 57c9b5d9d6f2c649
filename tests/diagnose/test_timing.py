"""Variant and original are timed in turn."""

from __future__ import annotations

import time

import numpy as np
import pytest

from compress.data import Feeds
from compress.diagnose.agreement import Run
from compress.diagnose.timing import LEAST_ROUNDS, WARM_UP_RUNS, Stopwatch, latency, processor_ratio


def test_latency_is_timed_in_turn() -> None:
    order: list[str] = []

    def named(name: str) -> Run:
        def run(feeds: Feeds) -> list[np.ndarray]:
            order.append(name)
            return []

        return run

    found = latency(named("variant"), named("original"), {}, runs=3)
    assert order[2 * WARM_UP_RUNS :] == ["variant", "original"] * 3
    assert found.runs == 3
    assert found.median > 0


def test_a_model_takes_as_long_as_itself() -> None:
    def run(feeds: Feeds) -> list[np.ndarray]:
        return [np.sort(np.arange(1000)[::-1])]

    found = latency(run, run, {}, runs=5)
    assert (found.ratio, found.log_sd) == (1, 0)


def test_ratios_that_differ_between_rounds_are_less_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    def spread(*seconds: float) -> float:
        now = [0.0]

        def run(feeds: Feeds) -> list[np.ndarray]:
            now[0] += 1.0 if len(taken) < 2 * WARM_UP_RUNS else next(durations)
            taken.append(now[0])
            return []

        taken: list[float] = []
        durations = iter(seconds)
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])
        return latency(run, lambda feeds: run(feeds), {}, runs=len(seconds) // 2).log_sd

    assert spread(2, 1, 2, 1, 2, 1) == 0
    assert 0 < spread(2, 1, 2.1, 1, 1.9, 1) < spread(2, 1, 3, 1, 1.5, 1)


def test_the_processor_time_of_both_is_taken_even_when_the_time_is_over() -> None:
    count = {"variant": 0, "original": 0}

    def busy(name: str, loops: int) -> Run:
        def run(feeds: Feeds) -> list[np.ndarray]:
            count[name] += 1
            return [np.sort(np.arange(loops)[::-1].astype(float) % 997)]

        return run

    assert processor_ratio(busy("variant", 400_000), busy("original", 4_000), {}, seconds=0) > 5
    assert count == {"variant": LEAST_ROUNDS, "original": LEAST_ROUNDS}


def test_where_processor_time_is_too_coarse_the_wall_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 1.0)

    def slow(seconds: float) -> Run:
        def run(feeds: Feeds) -> list[np.ndarray]:
            time.sleep(seconds)
            return []

        return run

    assert processor_ratio(slow(0.004), slow(0.001), {}, seconds=0) > 1.5


def test_a_stopwatch_does_not_count_what_others_take(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch()
    time.sleep(0.05)
    assert watch.seconds < 0.04
    now = time.process_time()
    monkeypatch.setattr(time, "process_time", lambda: now + 60)
    assert watch.seconds < 10, "work on many cores counts as long as it takes"
