"""The command that lists and explains passes."""

from __future__ import annotations

from typing import Annotated

import typer

from compress import report

commands = typer.Typer()


@commands.command(name="passes", epilog="Example: compress passes int8-static")
def passes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A pass.", show_default=False)] = None,
) -> None:
    """List the passes, or explain one with all its settings."""
    if name is None:
        table = report.tables.new("pass", "what it does")
        for known, kind in report.describe.catalogue().items():
            table.add_row(known, report.describe.paragraphs(kind)[0])
        report.tables.show(table)
        return
    kind = report.describe.find(name)
    report.tables.show(name, *(f"\n{paragraph}" for paragraph in report.describe.paragraphs(kind)))
    table = report.tables.new("setting", "default", "may be")
    for setting in report.describe.settings(kind):
        table.add_row(setting.name, setting.default, setting.allowed)
        table.add_row("", "", setting.description)
    report.tables.show("", table)
