"""What comes in each hour: what came in that hour on the days before, and how today differs."""

from __future__ import annotations

import math

import numpy as np

HOUR = 3600.0
HOURS = 24
MEMORY = 1 - 1 / 48
"""What an hour's error still counts an hour later: about two days are remembered."""
SETTLED = 300.0
"""Seconds before which a mean since the beginning is not taken at its word."""


class Season:
    """A forecast that has seen nothing but the past: the mean of the same hour on earlier days.

    Where today differs from it, the difference dies away as it did so far: its persistence is the correlation
    of one hour's error with the next (seasonal naive forecast with an autoregressive error).

    Args:
        start: seconds since the midnight before the first event.
        unseen: what is expected a second in hours of the day that were never seen; the mean so far if left
            out.
    """

    def __init__(self, start: float = 0.0, unseen: float | None = None) -> None:
        self._unseen = unseen
        self._start = self._now = start
        self._total = 0.0
        self._days = np.zeros((2, HOURS))  # sum by hour of the day, and number of days that it is of
        self._hour, self._amount, self._whole = math.floor(start / HOUR), 0.0, start % HOUR == 0
        self._squares, self._products, self._weight, self._error = 0.0, 0.0, 0.0, 0.0
        self._recent, self._expected = 0.0, 0.0

    def add(self, now: float, amount: float) -> None:
        """Note that `amount` came at `now`."""
        while math.floor(now / HOUR) > self._hour:
            self._pass_to((self._hour + 1) * HOUR)
            self._close()
        self._pass_to(now)
        self._total += amount
        self._amount += amount
        self._recent += amount

    def _pass_to(self, now: float) -> None:
        fade = math.exp(-(now - self._now) / self._window)
        rate = self._rate(self._now)
        self._expected = self._expected * fade + rate * self._window * (1 - fade)
        self._recent *= fade
        self._now = now

    def _close(self) -> None:
        """Compare the hour that ends with what was expected of it, and learn from it."""
        error = self._amount - self._rate(self._hour * HOUR) * HOUR
        if self._whole and self._hour * HOUR > self._start:
            self._squares = self._squares * MEMORY + error**2
            self._products = self._products * MEMORY + error * self._error
            self._weight = self._weight * MEMORY + 1
            self._error = error
        if self._whole:
            self._days[:, self._hour % HOURS] += self._amount, 1
        self._hour, self._amount, self._whole = self._hour + 1, 0.0, True

    @property
    def _mean(self) -> float:
        if self._unseen is not None:
            return self._unseen
        return self._total / max(self._now - self._start, SETTLED)

    def _rate(self, when: float) -> float:
        """Return what is expected a second in the hour of `when`, whatever today is like."""
        amount, days = self._days[:, math.floor(when / HOUR) % HOURS]
        return float(amount / days / HOUR) if days else self._mean

    @property
    def _correlation(self) -> float:
        """Correlation of an hour's error with the next."""
        return min(max(self._products / self._squares if self._squares else 0.5, 0.05), 0.95)

    @property
    def persistence(self) -> float:
        """Seconds in which a difference from the expected fades to 1/e."""
        return HOUR / -math.log(self._correlation)

    @property
    def _window(self) -> float:
        return min(max(self.persistence / 4, HOUR / 10), 2 * HOUR)

    @property
    def hourly_variance(self) -> float:
        """Mean square of what an hour differed by; of counts alone (Poisson), before any hour was seen."""
        return self._squares / self._weight if self._weight else self._mean * HOUR

    def ahead(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Return ends of intervals from now on, in seconds, and what is expected until then [n], [n].

        The intervals are hours of the clock, the last one cut at `seconds`.
        """
        first = HOUR - self._now % HOUR
        ends = np.minimum(first + HOUR * np.arange(max(math.ceil((seconds - first) / HOUR), 0) + 1), seconds)
        starts = np.concatenate([[0.0], ends[:-1]])
        amounts, days = self._days[:, (math.floor(self._now / HOUR) + np.arange(len(ends))) % HOURS]
        rates = np.where(days > 0, amounts / np.maximum(days, 1), self._mean * HOUR) / HOUR
        quarter = rates.mean() * self._window / 4 + 1e-30
        today = (self._recent + quarter) / (self._expected + quarter)
        fading = 1 + (today - 1) * np.exp(-(starts + ends) / 2 / self.persistence)
        return ends, np.cumsum(rates * fading * (ends - starts))

    def spread(self, ends: np.ndarray) -> np.ndarray:
        """Return the standard deviation of what comes until `ends`, in seconds from now, around `ahead` [n].

        It is that of a sum of errors, each correlated with the next.
        """
        hours, linked = ends / HOUR, self._correlation
        terms = hours * (1 + linked) / (1 - linked) - 2 * linked * (1 - linked**hours) / (1 - linked) ** 2
        # Within the first hour the errors are one.
        spread: np.ndarray = np.sqrt(self.hourly_variance * np.where(hours < 1, hours, terms))
        return spread
