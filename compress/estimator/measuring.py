"""Energy and time measured on this machine: less what it draws at rest, repeated, with the spread."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TypeAlias

from compress.data import Feeds
from compress.estimator.meter import LEAST_SECONDS, Meter, at_rest, counting, find_meter
from compress.graph.session import session
from compress.model import Model

REPEATS = 5

Run: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """Measured time and energy of one inference: means over the repetitions."""

    seconds: float
    seconds_sd: float
    """Standard deviation between repetitions."""
    joules: float | None
    """Energy less what the machine at rest draws in that time; None where it was not measured. Never an
    estimate."""
    joules_sd: float | None
    meter: str
    """Name of the meter, or the reason why nothing was measured."""
    runs: int
    """Inferences of all repetitions."""


def measure(
    model: Model | str | os.PathLike[str],
    feeds: Feeds,
    *,
    threads: int = 0,
    seconds: float = LEAST_SECONDS,
    repeats: int = REPEATS,
) -> Measured:
    """Return time and energy of one inference, after one to warm up.

    Where there is a meter each repetition takes at least `seconds`, and as long again at rest; where there is
    none, all together do.

    Args:
        model: what to run in ONNX Runtime: a model, or the path of an ONNX file.
        feeds: arrays by input name.
        threads: threads of one operator; 0 leaves the choice to the runtime.
        seconds: how long each repetition takes at least.
        repeats: how often to measure, at least twice.

    Raises:
        ModelError: the runtime refuses the model or these inputs.
    """
    opened = session(model.ir if isinstance(model, Model) else model, threads=threads)
    return measured(lambda: opened.run(None, feeds), find_meter(), seconds, repeats)


def measured(
    run: Run, meter: Meter | str, seconds: float = LEAST_SECONDS, repeats: int = REPEATS
) -> Measured:
    """Return time and energy of one call of `run`; see `measure`."""
    run()
    if isinstance(meter, str):
        found = [_timed(run, seconds / repeats) for _ in range(repeats)]
        times = [spent / runs for spent, runs in found]
        return Measured(mean(times), stdev(times), None, None, meter, sum(runs for _, runs in found))
    times, joules, every = [], [], 0
    for _ in range(repeats):
        idle = at_rest(meter, seconds)
        with counting(meter) as tally:
            spent, runs = _timed(run, max(seconds, meter.least_seconds))
            joules.append((tally.joules - idle * spent) / runs)
        times.append(spent / runs)
        every += runs
    told, why = _told(joules, meter)
    spread = stdev(joules) if told else None
    return Measured(mean(times), stdev(times), mean(joules) if told else None, spread, why, every)


def _told(joules: Sequence[float], meter: Meter) -> tuple[bool, str]:
    """Return whether the joules say anything, and the name of the meter, or why they do not."""
    middle = mean(joules)
    if math.isnan(middle):
        return False, f"not measured: {meter.name} could not be read all the time"
    if middle <= 0:
        return False, f"not measured: {meter.name} shows no more than at rest"
    return True, meter.name


def _timed(run: Run, seconds: float) -> tuple[float, int]:
    """Call `run` for some time; return the seconds taken and the number of calls."""
    runs, start = 0, time.perf_counter()
    while True:
        run()
        runs += 1
        spent = time.perf_counter() - start
        if spent >= seconds:
            return spent, runs
