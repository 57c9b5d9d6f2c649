"""How long a variant takes beside the original, both timed in turn on the same inputs."""

from __future__ import annotations

import statistics
import time

from compress.data import Feeds
from compress.diagnose.agreement import Run
from compress.progress import track
from compress.results import Latency

WARM_UP_RUNS = 2
"""Runs of each before the clock starts."""
LEAST_ROUNDS, MOST_ROUNDS = 7, 300
"""Fewest and most rounds of `processor_ratio`; the fewest run even when the time is over."""


def latency(run: Run, original: Run, feeds: Feeds, runs: int) -> Latency:
    """Time `run` and the original in turn on the same feeds, so that both meet the same machine."""
    times: dict[Run, list[float]] = {run: [], original: []}
    for _ in range(WARM_UP_RUNS):
        run(feeds)
        original(feeds)
    for _ in track(range(runs), "timing", total=runs):
        for each in times:
            start = time.perf_counter()
            each(feeds)
            times[each].append(time.perf_counter() - start)
    median, reference = statistics.median(times[run]), statistics.median(times[original])
    return Latency(median=median, runs=runs, ratio=median / reference)


def processor_ratio(run: Run, original: Run, feeds: Feeds, seconds: float) -> float:
    """Return the least processor time of `run` over that of `original`, the two taking turns.

    Other programs on the machine do not lengthen processor time. Both should work on one thread. Where the
    clock of processor time is too coarse to see a run, the time on the wall is taken.

    Args:
        run: the variant.
        original: the original.
        feeds: inputs of one run.
        seconds: when to stop; seven rounds are run in any case, the first of them to warm up.
    """
    times: dict[Run, list[tuple[float, float]]] = {run: [], original: []}
    end = time.perf_counter() + seconds
    while len(times[run]) < LEAST_ROUNDS or (time.perf_counter() < end and len(times[run]) < MOST_ROUNDS):
        for each, taken in times.items():
            processor, wall = time.process_time(), time.perf_counter()
            each(feeds)
            taken.append((time.process_time() - processor, time.perf_counter() - wall))
    fastest = [[min(clock) for clock in zip(*taken[1:], strict=True)] for taken in times.values()]
    clock = 0 if all(processor > 0 for processor, _ in fastest) else 1
    mine, reference = (least[clock] for least in fastest)
    return float(mine / reference)
