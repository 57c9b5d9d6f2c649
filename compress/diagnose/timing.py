"""How long a variant takes beside the original, both timed in turn on the same inputs."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from compress.data import Feeds
from compress.diagnose.agreement import Run
from compress.progress import track
from compress.results import Latency

WARM_UP_RUNS = 2
"""Runs of each before the clock starts."""
LEAST_ROUNDS, MOST_ROUNDS = 7, 300
"""Fewest and most rounds of `processor_ratio`; the fewest run even when the time is over."""
ROBUST, OF_MEDIAN = 1.4826, 1.2533
"""Of a normal distribution: standard over median absolute deviation; error of the median over the mean's."""
LONG_SECONDS, ROUNDS_OF_LONG = 0.3, 3
"""A run that takes so long varies little, and needs no more rounds than these."""


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
    mine, theirs = np.array(times[run]), np.array(times[original])
    apart = np.log(mine / theirs)
    deviation = ROBUST * float(np.median(np.abs(apart - np.median(apart))))
    return Latency(
        median=float(np.median(mine)),
        runs=runs,
        ratio=float(np.median(mine) / np.median(theirs)),
        log_sd=OF_MEDIAN * deviation / runs**0.5,
    )


def processor_ratio(run: Run, original: Run, feeds: Feeds, seconds: float) -> float:
    """Return the least processor time of `run` over that of `original`, the two taking turns.

    Other programs on the machine do not lengthen processor time. Both should work on one thread. Where the
    clock of processor time is too coarse to see a run, the time on the wall is taken.

    Args:
        run: the variant.
        original: the original.
        feeds: inputs of one run.
        seconds: when to stop; seven rounds are run in any case, three of long runs, the first to warm up.
    """
    times: dict[Run, list[tuple[float, float]]] = {run: [], original: []}
    end, least = time.perf_counter() + seconds, LEAST_ROUNDS
    while len(times[run]) < least or (time.perf_counter() < end and len(times[run]) < MOST_ROUNDS):
        for each, taken in times.items():
            processor, wall = time.process_time(), time.perf_counter()
            each(feeds)
            taken.append((time.process_time() - processor, time.perf_counter() - wall))
            least = ROUNDS_OF_LONG if taken[-1][1] > LONG_SECONDS else least
    fastest = [[min(clock) for clock in zip(*taken[1:], strict=True)] for taken in times.values()]
    clock = 0 if all(processor > 0 for processor, _ in fastest) else 1
    mine, reference = (least[clock] for least in fastest)
    return float(mine / reference)


def processor_time(run: Callable[[], object]) -> float:
    """Return the least processor time of some calls in seconds, or on the wall where that clock is coarse."""
    taken: list[tuple[float, float]] = []
    for _ in range(LEAST_ROUNDS):
        processor, wall = time.process_time(), time.perf_counter()
        run()
        taken.append((time.process_time() - processor, time.perf_counter() - wall))
    return min(first for first, _ in taken[1:]) or min(second for _, second in taken[1:])


class Stopwatch:
    """Tells the seconds since it was made, on the wall or of this process's work, whichever are fewer.

    So neither other programs nor work on many cores at once shorten what is done within a time.
    """

    def __init__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return min(time.process_time() - self._start[0], time.perf_counter() - self._start[1])
