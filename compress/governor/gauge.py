"""What a request really cost, as long as the meter can be believed."""

from __future__ import annotations

import math
import time

from compress.estimator.meter import Meter


class Gauge:
    """A meter read around each request, which notices when the meter fails.

    Args:
        meter: the meter; None takes the estimates.
        estimated: how joules are known where they are not measured, in words.
    """

    def __init__(self, meter: Meter | None, estimated: str) -> None:
        self._meter = meter
        self._estimated = estimated
        self._failure = ""
        self._idle = 0.0
        self._before: tuple[float, ...] | None = None
        self._began = 0.0

    @property
    def alive(self) -> bool:
        """Whether the last readings were plausible; true without a meter, which cannot fail."""
        return not self._failure

    @property
    def source(self) -> str:
        """How joules are known, in words."""
        if self._meter is None:
            return self._estimated
        return f"measured by {self._meter.name}" if self.alive else f"{self._failure}; {self._estimated}"

    def start(self) -> None:
        """Read the meter before a request."""
        self._began = time.perf_counter()
        self._before = self._read()

    def stop(self) -> tuple[float, float | None]:
        """Return the seconds and the joules of the request; None where they were not measured."""
        seconds = time.perf_counter() - self._began
        after = self._read()
        if self._meter is None or self._before is None or after is None:
            return seconds, None
        joules = self._meter.joules(self._before, after)
        if not (math.isfinite(joules) and joules >= 0):
            self._failure = f"the meter {self._meter.name} says {joules} J"
            return seconds, None
        self._idle = 0.0 if joules else self._idle + seconds
        dead = self._idle > self._meter.least_seconds
        self._failure = f"the meter {self._meter.name} stands still" if dead else ""
        return seconds, None if dead else joules

    def _read(self) -> tuple[float, ...] | None:
        if self._meter is None:
            return None
        try:
            return self._meter.read()
        except Exception as error:  # files, drivers and meters of the user fail in their own ways
            self._failure = f"the meter {self._meter.name} cannot be read ({error})"
            return None
