"""Traces of requests, read from CSV: when they came, what was harvested, what was granted."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from compress.errors import InputError, did_you_mean
from compress.governor.budget import DAY

COLUMNS = {
    "time": "seconds, a time of day (18:00 or 18:00:30) or a date and time (2026-06-21T18:00)",
    "requests": "how many come from this time until the next row, evenly spread; 1 at this time if left out",
    "harvest_watts": "power that flows into the battery from this time on",
    "budget_watts": "power that is granted from this time on, in place of the budget's",
}
"""The columns of a trace and what they mean; all but `time` may be left out."""
MOST_REQUESTS = 10_000_000


@dataclass(frozen=True)
class Trace:
    """When requests came, and the powers that changed in between.

    Times are seconds since midnight of the first day.
    """

    requests: np.ndarray
    """Time of each request, in order [n]."""
    start: float
    end: float
    harvest: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))
    """Times, and the watts harvested from each on."""
    grants: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))
    """Times, and the watts granted from each on."""

    def harvested(self, times: np.ndarray) -> np.ndarray:
        """Return the joules harvested from the start until each of `times` [n]."""
        since, watts = self.harvest
        if not len(since):
            return np.zeros(len(times))
        ends = np.append(since[1:], max(self.end, since[-1]))
        sums = np.concatenate([[0.0], np.cumsum(watts * (ends - since))])
        known: np.ndarray = np.interp(times, np.append(since, ends[-1]), sums)
        return known


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace; `COLUMNS` tells its columns. Gaps are times without requests.

    Raises:
        InputError: the file cannot be read, misses a column, holds what is no number, or time runs backwards.
            The message names file and line.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(csv.reader(file), os.fspath(path)))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file: {error}") from error
    if not rows:
        raise InputError(f"{path}: the trace has no rows")
    times = np.array([row["time"] for row in rows])
    times -= math.floor(times[0] / DAY) * DAY
    width = float(times[-1] - times[-2]) if len(times) > 1 else 0.0
    counted = "requests" in rows[0]
    counts = np.array([row.get("requests", 1.0) for row in rows]).astype(int)
    if counts.sum() > MOST_REQUESTS:
        raise InputError(f"{path}: {counts.sum():,} requests are more than a trace may have")
    ends = np.append(times[1:], times[-1] + (width if counted else 0.0))
    places = [
        start + (end - start) * np.arange(count) / count
        for start, end, count in zip(times, ends, counts, strict=True)
        if count
    ]
    nothing = (np.zeros(0), np.zeros(0))
    powers = {
        name: (times, np.array([row[name] for row in rows])) if name in rows[0] else nothing
        for name in ("harvest_watts", "budget_watts")
    }
    requests = np.concatenate(places) if places else np.zeros(0)
    if not len(requests):
        raise InputError(f"{path}: the trace has no requests")
    return Trace(requests, times[0], float(ends[-1]), powers["harvest_watts"], powers["budget_watts"])


def _rows(lines: Iterator[list[str]], path: str) -> Iterator[Mapping[str, float]]:
    """Yield the numbers of each row by column, checked."""
    names = [name.strip() for name in next(lines, [])]
    if "time" not in names:
        found = f"its first line is {','.join(names)!r}" if names else "the file is empty"
        raise InputError(f"{path}: there is no column 'time'; {found}")
    for name in names:
        if name not in COLUMNS:
            raise InputError(f"{path}: unknown column {name!r}{did_you_mean(name, COLUMNS)}")
    before = -math.inf
    for number, cells in enumerate(lines, 2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}:{number}"
        if len(cells) != len(names):
            raise InputError(f"{where}: {len(cells)} cells where the first line names {len(names)} columns")
        row = {name: _number(name, cell.strip(), where) for name, cell in zip(names, cells, strict=True)}
        if row["time"] < before:
            raise InputError(
                f"{where}: time runs backwards, from {before:g} s to {row['time']:g} s; "
                "a trace of several days gives the date with each time"
            )
        before = row["time"]
        yield row


def _number(name: str, cell: str, where: str) -> float:
    try:
        value = _seconds(cell) if name == "time" else float(cell)
    except ValueError as error:
        raise InputError(f"{where}: {name} is {cell!r}; write {COLUMNS[name]}") from error
    if not math.isfinite(value):
        raise InputError(f"{where}: {name} is {cell}, not a finite number")
    if name != "time" and value < 0:
        raise InputError(f"{where}: {name} is {cell}, below zero")
    if name == "requests" and value != int(value):
        raise InputError(f"{where}: {cell} requests are no whole number")
    return value


def _seconds(cell: str) -> float:
    """Return seconds since midnight, of the year 1 where a date is given."""
    if ":" not in cell:
        return float(cell)
    if "-" in cell:
        when = datetime.fromisoformat(cell).replace(tzinfo=None)
        return (when - datetime.min).total_seconds()
    hour, minute, second = [*map(float, cell.split(":")), 0.0][:3]
    if not (0 <= hour <= 24 and 0 <= minute < 60 and 0 <= second < 60):
        raise ValueError(cell)
    return hour * 3600 + minute * 60 + second
