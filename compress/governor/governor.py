"""A family of variants that runs as one model, within a budget of joules and a deadline."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compress import units
from compress.errors import InputError, LimitError
from compress.estimator.meter import Meter, find_meter
from compress.governor.budget import Budget, parse_seconds
from compress.governor.controller import Controller
from compress.governor.frontier import Family, Frontier, Option, of_run
from compress.governor.gauge import Gauge
from compress.governor.replay import Replay, learned, replay
from compress.governor.trace import Trace, read_trace
from compress.governor.warm import Warm

if TYPE_CHECKING:
    from compress.data import Feeds

LEARNT = 0.1
"""Weight of one more measurement in what an option is taken to cost."""
LEAVE = 16
"""Requests for which an option is not used after it missed the deadline; twice as many each time."""


@dataclass(frozen=True)
class Answered:
    """How the last request was answered."""

    option: Option
    """The variant, and the operating point, that answered."""
    joules: float
    measured: bool
    """Whether the joules were measured; else they are the estimate."""
    seconds: float
    price: float
    """Quality that a joule had to buy."""
    charge: float
    """Joules left."""


class Governor:
    """Variants of one model, of which the best that the budget and the deadline allow answers each request.

    The price of a joule goes up when more is spent than the budget lets, and down when less is, and each
    request is answered by the variant whose quality, less its joules at that price, is highest. It sees
    nothing of the future: it learns from the requests that came how many come at which hour.

    If the meter fails, or stands still, the cheapest variant that meets the deadline answers until the meter
    works again. A variant that misses the deadline rests for a while.

    Example: ``compress.Governor("runs/solar_meter", budget="5 Wh until 18:00", deadline="30 ms")``

    Args:
        variants: the folder that ``compress run -o`` wrote, or options with their files.
        budget: a power (``2 W``, ``1200 J/h``), or a battery and the time that it must last (``36 kJ for
            8 h``, ``5 Wh until 18:00``, ``5 Wh, 40% full, for 24 h``).
        deadline: the longest that an answer may take, as ``30 ms`` or in seconds.
        hardware: the profile whose joules count, of those the run was scored on; its first if left out.
        meter: what measures joules while a request runs: "auto" for the machine's own, or one of
            `compress.estimator.meter`, such as a GPU's. None, or a machine without, takes the estimates.
        memory_bytes: size of the files whose sessions are kept ready; no limit if left out.
        history: an earlier trace, or its CSV file, to learn from what a day is like.
        threads: threads of one operator; 0 leaves the choice to the runtime.
        on_switch: called with the option before a request that another one answers than the last; sets
            voltage and clock where options are operating points.
        clock: seconds since midnight of the first day; the machine's if left out.

    Attributes:
        options: everything that may answer, at what it has come to cost.
        quality: what options are ranked by, such as accuracy.
        last: how the last request was answered; None before the first.

    Raises:
        InputError: the budget or the deadline is not one, there is no such run or hardware, or no variant
            meets the deadline.
    """

    def __init__(
        self,
        variants: str | os.PathLike[str] | Iterable[Option],
        budget: str | Budget,
        deadline: str | float | None = None,
        *,
        hardware: str | None = None,
        meter: Meter | Literal["auto"] | None = "auto",
        memory_bytes: float = math.inf,
        history: str | os.PathLike[str] | Trace | None = None,
        threads: int = 0,
        on_switch: Callable[[Option], None] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if isinstance(variants, str | os.PathLike):
            family = of_run(variants, hardware)
        else:
            family = Family(tuple(variants))
        self.options, self.quality = list(family.options), family.measure
        self.budget = Budget.parse(budget) if isinstance(budget, str) else budget
        self.deadline_seconds = None if deadline is None else parse_seconds(deadline)
        self.frontier = Frontier.of(
            self.options, deadline_seconds=self.deadline_seconds, unanswered=family.unanswered
        )
        self.history = read_trace(history) if isinstance(history, str | os.PathLike) else history
        self._clock = clock or _wall_clock()
        self._gauge = _gauge(meter)
        self._warm = Warm(memory_bytes, threads)
        self._on_switch = on_switch
        self._controller = learned(Controller(self.frontier, self.budget, self._clock()), self.history)
        self._misses: dict[
            str, tuple[int, int]
        ] = {}  # by option: how often, and until which request it rests
        self._requests = 0
        self.last: Answered | None = None

    def __repr__(self) -> str:
        names = ", ".join(map(str, self.frontier.options))
        left = units.si(self._controller.store.charge, "J")
        return f"Governor({names}; {left} left, joules {self._gauge.source})"

    def run(self, feeds: Feeds) -> list[np.ndarray]:
        """Answer a request with the best option that budget and deadline allow; `last` tells which.

        Args:
            feeds: arrays by input name.

        Raises:
            LimitError: not even the cheapest variant can be paid; the request is not answered.
            ModelError: ONNX Runtime refuses the variant or the inputs.
        """
        now = self._clock()
        self._controller.advance(now)
        option = self._choose(now)
        if option.path is None:
            raise InputError(f"{option} has no file to run")
        session = self._warm.get(option.path)
        if self._on_switch and (self.last is None or self.last.option != option):
            self._on_switch(option)
        self._gauge.start()
        outputs: list[Any] = session.run(None, feeds)
        self._settle(option, *self._gauge.stop())
        return outputs

    def harvested(self, joules: float) -> None:
        """Tell of joules that have flowed into the battery since the last request."""
        self._controller.advance(self._clock(), joules)

    def replay(self, trace: str | os.PathLike[str] | Trace) -> Replay:
        """Play a trace with estimated joules, beside each variant alone and the offline optimum.

        Raises:
            InputError: the trace is not one; the message names file and line.
        """
        read = trace if isinstance(trace, Trace) else read_trace(trace)
        return replay(read, self.frontier, self.budget, self.history)

    def _choose(self, now: float) -> Option:
        self._requests += 1
        if any(until == self._requests for _, until in self._misses.values()):
            self._renew()
        chosen = self._controller.choose(now)
        if chosen is None:
            left, needed = self._controller.store.charge, self._controller.frontier.cheapest
            raise LimitError(
                f"the budget is spent: {units.si(max(left, 0.0), 'J')} are left, and the cheapest variant, "
                f"{needed}, takes {units.si(needed.joules, 'J')}; try again later"
            )
        return chosen if self._gauge.alive else self._controller.frontier.cheapest

    def _settle(self, option: Option, seconds: float, joules: float | None) -> None:
        """Charge a request, and remember what it cost and whether it was in time."""
        spent = option.joules if joules is None else joules
        self._controller.settle(spent)
        store, price = self._controller.store, self._controller.price
        self.last = Answered(option, spent, joules is not None, seconds, price, store.charge)
        missed = self.deadline_seconds is not None and seconds > self.deadline_seconds
        if missed:
            times, _ = self._misses.get(str(option), (0, 0))
            self._misses[str(option)] = times + 1, self._requests + LEAVE * 2**times + 1
        if joules is not None and joules > 0:
            place = next(i for i, each in enumerate(self.options) if str(each) == str(option))
            learnt = option.joules + LEARNT * (joules - option.joules)
            self.options[place] = replace(self.options[place], joules=learnt)
        if missed or joules:
            self._renew()

    def _renew(self) -> None:
        """Choose from now on among the options that do not rest, at what they have come to cost."""
        resting = {name for name, (_, until) in self._misses.items() if until > self._requests}
        ready = [
            each
            for each in self.options
            if str(each) not in resting and each.seconds <= (self.deadline_seconds or math.inf)
        ]
        # Where all have missed the deadline, the one that is said to be the fastest comes closest to it.
        ready = ready or [min(self.options, key=lambda each: each.seconds)]
        self.frontier = Frontier.of(ready, unanswered=self.frontier.unanswered)
        self._controller.use(self.frontier)


def _gauge(meter: Meter | Literal["auto"] | None) -> Gauge:
    if meter == "auto":
        found = find_meter()
        return Gauge(None, f"estimated, {found}") if isinstance(found, str) else Gauge(found, "estimated")
    return Gauge(meter, "estimated")


def _wall_clock() -> Callable[[], float]:
    """Return a clock of seconds since midnight that never runs backwards."""
    today = datetime.now()
    start = (today - today.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
    began = time.monotonic()
    return lambda: start + time.monotonic() - began
