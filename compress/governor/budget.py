"""How many joules there are, from when on and until when: ``2 W``, ``1200 J/h``, ``5 Wh until 18:00``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from compress.errors import InputError

DAY = 86400.0
"""Seconds of a day, which is how far ahead a budget without an end is planned."""
JOULES = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9, "kJ": 1e3, "MJ": 1e6, "Wh": 3600.0, "mWh": 3.6}
WATTS = {"W": 1.0, "mW": 1e-3, "uW": 1e-6, "nW": 1e-9, "kW": 1e3}
PERIODS = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": DAY}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
MINUTE = 60.0
"""The shortest time for which joules are granted together; a power is granted minute by minute."""
EXAMPLES = "2 W, 1200 J/h, 36 kJ for 8 h, 5 Wh until 18:00 or 5 Wh, 40% full, for 24 h"

_NUMBER = r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)"
_BUDGET = re.compile(
    rf"{_NUMBER}\s*([^0-9\s,/]+)(?:\s*/\s*([A-Za-z]+))?"
    rf"(?:\s*,?\s*{_NUMBER}\s*%\s*full)?"
    rf"(?:\s*,?\s*(?:for\s+{_NUMBER}\s*([A-Za-z]+)|until\s+([0-9]{{1,2}}):([0-9]{{2}})))?"
)


@dataclass(frozen=True)
class Budget:
    """Joules that may be spent: a power granted period by period, or a battery with what it is charged by.

    What is not spent is kept: a power is kept on the average since the beginning, and never exceeded by more
    than the rest of the period that has begun.
    """

    watts: float = 0.0
    """Power that is granted."""
    period_seconds: float = MINUTE
    """Time whose joules are granted at its beginning."""
    joules: float = 0.0
    """What is there at the beginning."""
    capacity_joules: float = math.inf
    """What a battery holds at most; harvest beyond it is lost."""
    lasts_seconds: float | None = None
    """How long the budget must last, and then again as long; None plans for the coming day."""
    until: float | None = None
    """Second of the day until which it must last, and then until the same time of the next day."""

    @classmethod
    def parse(cls, written: str) -> Budget:
        """Read a budget: a power (``2 W``, ``1200 J/h``), or a battery with the time that it must last.

        Raises:
            InputError: a number, a unit or the time is missing or unknown.
        """
        match = _BUDGET.fullmatch(written.strip())
        if match is None:
            raise InputError(f"{written!r} is not a budget; write one such as {EXAMPLES}")
        number, unit, per, full, span, span_unit, hour, minute = match.groups()
        lasts = None if span is None else float(span) * _scale(span_unit, SECONDS | PERIODS, "time", written)
        until = None if hour is None else _time_of_day(int(hour), int(minute), written)
        if float(number) == 0 or lasts == 0:
            raise InputError(f"budget {written!r}: nothing runs on 0 {span_unit if lasts == 0 else unit}")
        if unit in WATTS or per is not None:
            return cls._power(float(number), unit, per, written, full)._replaced(lasts, until)
        joules = float(number) * _scale(unit, JOULES, "energy or power", written)
        if lasts is None and until is None:
            raise InputError(
                f"budget {written!r} does not say how long it must last; "
                f"write '{written} for 24 h', '{written} until 18:00', or a power such as '{written}/h'"
            )
        charged = joules * (100.0 if full is None else float(full)) / 100
        if charged > joules:
            raise InputError(f"budget {written!r}: a battery cannot be more than 100% full")
        return cls(joules=charged, capacity_joules=joules, lasts_seconds=lasts, until=until)

    @classmethod
    def _power(cls, number: float, unit: str, per: str | None, written: str, full: str | None) -> Budget:
        if full is not None:
            raise InputError(f"budget {written!r}: only a battery, such as 5 Wh, can be full")
        if per is None:
            return cls(watts=number * WATTS[unit])
        if unit in WATTS:
            raise InputError(
                f"budget {written!r}: {unit} is a power already; write '{number:g} {unit}' or J/{per}"
            )
        period = _scale(per, PERIODS, "time", written)
        watts = number * _scale(unit, JOULES, "energy", written) / period
        return cls(watts=watts, period_seconds=max(period, MINUTE))

    def _replaced(self, lasts: float | None, until: float | None) -> Budget:
        return Budget(self.watts, self.period_seconds, lasts_seconds=lasts, until=until)

    def remaining(self, now: float, start: float) -> float:
        """Return the seconds from `now` that the joules must last.

        Args:
            now: seconds since midnight of the first day.
            start: when the budget began, in the same seconds.
        """
        if self.until is not None:
            return DAY - (now - self.until) % DAY
        if self.lasts_seconds is not None:
            return self.lasts_seconds - (now - start) % self.lasts_seconds
        return DAY

    @property
    def ends(self) -> bool:
        """Whether it is stated how long the joules must last."""
        return self.until is not None or self.lasts_seconds is not None


def parse_seconds(written: str | float) -> float:
    """Read a deadline: ``30 ms``, or a number of seconds.

    Raises:
        InputError: it is not a time, or not above zero.
    """
    match = re.fullmatch(rf"{_NUMBER}\s*([A-Za-z]*)", f"{written}".strip())
    if match is None:
        raise InputError(f"deadline {written!r} is not a time; write one such as 30 ms")
    seconds = float(match[1]) * (_scale(match[2], SECONDS, "time", f"{written}") if match[2] else 1.0)
    if isinstance(written, str) and not match[2]:
        raise InputError(f"deadline {written!r} has no unit; write '{written} ms' or '{written} s'")
    if not 0 < seconds < math.inf:
        raise InputError(f"deadline {written!r}: a time must be above 0")
    return seconds


def _scale(unit: str, known: dict[str, float], quantity: str, written: str) -> float:
    if unit in known:
        return known[unit]
    written_so = known | WATTS if "power" in quantity else known
    alike = [name for name in written_so if name.lower() == unit.lower()]
    advice = f"did you mean {alike[0]!r}?" if alike else f"write one of {', '.join(known)}"
    if quantity.startswith("energy") and not alike:
        advice = f"write a budget such as {EXAMPLES}"
    raise InputError(f"{written!r}: {unit!r} is not a unit of {quantity}; {advice}")


def _time_of_day(hour: int, minute: int, written: str) -> float:
    if hour > 24 or minute > 59 or (hour == 24 and minute):
        raise InputError(f"budget {written!r}: {hour}:{minute:02} is not a time of day")
    return (hour % 24) * 3600.0 + minute * 60.0
