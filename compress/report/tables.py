"""Plain tables of the command line."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table


def new(*headers: str, breaks: int = -1) -> Table:
    """Return an empty table; if it is too wide, the cells of the column numbered `breaks` are wrapped."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header != headers[breaks])
    return table


def show(*parts: str | Table) -> None:
    """Print tables and lines to stdout, one below the other."""
    console = Console(markup=False, highlight=False, emoji=False)
    for part in parts:
        console.print(part)
