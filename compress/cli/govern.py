"""The command that replays a trace of requests."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import compress
from compress import report
from compress.cli.options import Json, print_json

if TYPE_CHECKING:
    from compress.governor import Replay

commands = typer.Typer()


@commands.command(
    epilog="Example: compress govern runs/solar_meter --trace recipes/solar_meter_day.csv "
    '--budget "150 mJ, 40% full, for 24 h"'
)
def govern(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder of a run.", show_default=False),
    ],
    trace: Annotated[
        Path, typer.Option("--trace", metavar="FILE.csv", help="The requests; see below.", show_default=False)
    ],
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="BUDGET",
            help="A power, as 2 W or 1200 J/h, or a battery and the time that it must last: 36 kJ for 8 h, "
            "5 Wh until 18:00, or 5 Wh, 40% full, for 24 h.",
            show_default=False,
        ),
    ],
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="TIME", help="The longest answer allowed: 30 ms.")
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option("--hardware", metavar="ID", help="The profile whose joules count; the run's first."),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            "--history", metavar="FILE.csv", help="An earlier trace, which tells what a day is like."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.html", help="The page; DIR/governor.html if left out."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay requests, each answered within a budget of joules.

    Picks the variant of most accuracy for each, and keeps the deadline. Prints accuracy, joules and switches
    beside each variant alone and the offline optimum, and draws them.

    The trace is a CSV file with a column time (seconds, 18:00 or 2026-06-21T18:00) and, if wanted, requests
    (how many until the next row), harvest_watts (what charges the battery from then on) and budget_watts (a
    power that takes the place of the budget's). Ends with 3 if the budget does not pay for every request.
    """
    governor = compress.Governor(folder, budget, deadline, hardware=hardware, meter=None, history=history)
    found, page = governor.replay(trace), output or folder / "governor.html"
    title = f"{folder.name}, {trace.stem}: {budget}"
    report.governing.write_replay(found, page, title=title, quality=governor.quality)
    if as_json:
        _print_json(found, governor.quality)
    else:
        report.tables.show(*report.governing.of_replay(found, governor.quality), f"\n{page}")
    if found.governor.unanswered:
        raise typer.Exit(3)


def _print_json(found: Replay, quality: str) -> None:
    courses = [{**asdict(each), "gain": found.gain(each)} for each in report.governing.courses(found)]
    print_json(
        schema=1, metric=quality, requests=found.requests, budget_joules=found.budget_joules, courses=courses
    )
