"""Variant and original are timed in turn."""

from __future__ import annotations

import numpy as np

from compress.data import Feeds
from compress.diagnose.agreement import Run
from compress.diagnose.timing import LEAST_ROUNDS, WARM_UP_RUNS, latency, processor_ratio


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


def test_the_processor_time_of_both_is_taken_even_when_the_time_is_over() -> None:
    count = {"variant": 0, "original": 0}

    def busy(name: str, loops: int) -> Run:
        def run(feeds: Feeds) -> list[np.ndarray]:
            count[name] += 1
            return [np.sort(np.arange(loops)[::-1].astype(float) % 997)]

        return run

    assert processor_ratio(busy("variant", 400_000), busy("original", 4_000), {}, seconds=0) > 5
    assert count == {"variant": LEAST_ROUNDS, "original": LEAST_ROUNDS}
