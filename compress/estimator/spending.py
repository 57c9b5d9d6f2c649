"""What work on this machine costs: measured where there is a meter, and estimated from processor time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache

from compress.estimator.catalogue import load
from compress.estimator.meter import Meter, at_rest, counting, find_meter
from compress.estimator.uncertainty import interval
from compress.results import SURE, HardwareScore, Making, Payback

JOULES_PER_KWH = 3.6e6
PROFILE = "cpu"
"""The profile of the machine that does the work."""


class Spending:
    """Work under way; `made` tells what it cost once it is over."""

    made: Making


@contextmanager
def spending(by: str) -> Iterator[Spending]:
    """Count what the body costs, unless it raises."""
    meter, idle, found = _meter(), _idle_watts(), Spending()
    with ExitStack() as stack:
        tally = None if isinstance(meter, str) else stack.enter_context(counting(meter))
        start, processor = time.perf_counter(), _processor_seconds()
        yield found
        seconds, processor = time.perf_counter() - start, _processor_seconds() - processor
        joules = None if tally is None else max(tally.joules - idle * seconds, 0.0)
    name = meter if isinstance(meter, str) else meter.name
    if joules is not None and math.isnan(joules):
        joules, name = None, f"not measured: {name} could not be read all the time"
    found.made = of_time(by, seconds, processor, joules, name)


def of_time(by: str, seconds: float, processor: float, joules: float | None, meter: str) -> Making:
    """Return what work costs that takes so many seconds of cores, on the profile `cpu`."""
    watts = load(PROFILE).package_watts
    assert watts is not None  # the profile that comes with the package states it
    low, high = interval(watts.draws[1:] * processor)
    return Making(
        by=by,
        seconds=seconds,
        processor_seconds=processor,
        measured_joules=joules,
        meter=meter,
        estimated_joules=watts.value * processor,
        estimated_low=low,
        estimated_high=high,
    )


def total(parts: Sequence[Making], by: str) -> Making:
    """Return what all parts cost together; measured only if every part was."""
    known = [part.measured_joules for part in parts if part.measured_joules is not None]
    return of_time(
        by,
        math.fsum(part.seconds for part in parts),
        math.fsum(part.processor_seconds for part in parts),
        math.fsum(known) if len(known) == len(parts) else None,
        "; ".join(dict.fromkeys(part.meter for part in parts)),
    )


def payback(making: Making, score: HardwareScore, original: HardwareScore) -> Payback | None:
    """Return when a variant has saved on some hardware what it took to make on this machine.

    None where there is no ratio to the original.
    """
    if score.ratio is None:
        return None
    saved, less = original.energy_joules - score.energy_joules, score.ratio.less
    return Payback(
        inferences=making.joules / saved if saved > 0 else None,
        sure=(less if saved > 0 else 1 - less) >= SURE,
        making=making.how,
    )


def grams(joules: float, grams_per_kwh: float) -> float:
    """Return the grams of CO2 equivalent of electricity, at a stated intensity of the grid."""
    return joules / JOULES_PER_KWH * grams_per_kwh


def _processor_seconds() -> float:
    """Return the seconds of all cores so far, of child processes that have ended too."""
    return math.fsum(os.times()[:4])


@cache
def _meter() -> Meter | str:
    """Return the meter; a battery would have to be watched for ten seconds first, which no pass waits for."""
    found = find_meter()
    if isinstance(found, str) or found.least_seconds <= 1:
        return found
    return f"not measured: {found.name} is too slow"


@cache
def _idle_watts() -> float:
    """Return what the machine takes at rest, once for all work of this process."""
    meter = _meter()
    return 0.0 if isinstance(meter, str) else at_rest(meter)
