"""A replay of the governor as a table, sentences and a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from compress import units
from compress.report import page, tables
from compress.report.plots.governing import over_time, quality_vs_joules

if TYPE_CHECKING:
    from rich.table import Table

    from compress.governor import Course, Replay


def of_replay(found: Replay, quality: str) -> Iterator[str | Table]:
    """Yield the table of a replay, and what it comes to in words.

    Args:
        found: the replay.
        quality: what the variants are ranked by, such as accuracy.
    """
    table = tables.new("", quality, "gain", "spent", "unanswered", "switches")
    for course in courses(found):
        table.add_row(course.name, *_cells(found, course))
    yield table
    yield f"\ngain: of what the offline optimum gains over {found.fixed[0].name}"
    yield verdict(found)


def courses(found: Replay) -> tuple[Course, ...]:
    """Return all that went through the trace, the governor first."""
    return (found.governor, *found.fixed, found.offline)


def verdict(found: Replay) -> str:
    """Say what the governor made of the trace."""
    spent, given = units.si(found.governor.joules, "J"), units.si(found.budget_joules, "J")
    requests, lost = units.count(found.requests, "request"), found.governor.unanswered
    rest = f" {units.count(lost, 'request')} could not be paid and got no answer." if lost else ""
    gains = [units.share(found.gain(each)) for each in (found.governor, found.best_fixed)]
    return (
        f"The governor spent {spent} of {given} on {requests} and reached {gains[0]} of the optimum's gain; "
        f"the best variant alone, {found.best_fixed.name}, reaches {gains[1]}.{rest}"
    )


def write_replay(found: Replay, path: str | os.PathLike[str], *, title: str, quality: str) -> Path:
    """Write the page of a replay, whole or not at all.

    Raises:
        StoreError: the file could not be written.
    """
    figures = {
        "time": page.figure(over_time(found), "Requests by variant over time, and the joules left."),
        "courses": page.figure(quality_vs_joules(found), verdict(found)),
    }
    rows = [(course.name, _cells(found, course)) for course in courses(found)]
    text = page.rendered(
        "governor.html.j2", figures, title=title, verdict=verdict(found), quality=quality, rows=rows
    )
    return page.save(text, path)


def _cells(found: Replay, course: Course) -> tuple[str, ...]:
    offline = course is found.offline
    return (
        units.number(course.quality),
        units.share(found.gain(course)).replace("-", "−"),
        units.si(course.joules, "J"),
        "" if offline else f"{course.unanswered}",
        f"{course.switches}" if course is found.governor else "",
    )
