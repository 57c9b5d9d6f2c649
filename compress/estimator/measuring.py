"""Energy and time measured on this machine: less what it draws at rest, repeated, with the spread."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TypeAlias

from compress.data import Feeds
from compress.estimator.meter import Meter, find_meter
from compress.graph.session import session
from compress.model import Model

LEAST_SECONDS = 1.0
"""How long each repetition of a measurement takes at least; as long as a meter needs, if that is more."""
REPEATS = 5
POLL_SECONDS = 0.1
"""How often meters are read meanwhile: a power must be followed, and no counter may wrap twice unseen."""

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


class Tally:
    """Joules and seconds since it was made."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._lock = meter, threading.Lock()
        self._start, self._joules = time.perf_counter(), 0.0
        self._last = meter.read()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start

    @property
    def joules(self) -> float:
        """Joules so far; NaN if the meter could not tell at some moment."""
        with self._lock:
            try:
                before, self._last = self._last, self._meter.read()
                self._joules += self._meter.joules(before, self._last)
            except OSError:  # a battery that is taken out has no files any more
                self._joules = math.nan
            return self._joules


@contextmanager
def counting(meter: Meter) -> Iterator[Tally]:
    """Count the energy of the body."""
    tally, done = Tally(meter), threading.Event()

    def follow() -> None:
        while not done.wait(POLL_SECONDS):
            _ = tally.joules

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield tally
    finally:
        done.set()
        thread.join()


def at_rest(meter: Meter, seconds: float = LEAST_SECONDS) -> float:
    """Return the watts that a meter shows while this process does nothing."""
    with counting(meter) as tally:
        time.sleep(max(seconds, meter.least_seconds))
        return tally.joules / tally.seconds


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
