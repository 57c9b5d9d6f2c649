"""Progress of long work on stderr; nothing when stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` while a bar on stderr counts them; the bar vanishes at the end."""
    if not description or not sys.stderr.isatty():
        yield from items
        return
    yield from rich_track(items, description, total=total, console=Console(stderr=True), transient=True)


@contextmanager
def step(description: str) -> Iterator[None]:
    """Show on stderr that a step is under way; without a terminal, one line as it begins."""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        console.print(description, soft_wrap=True)
        yield
        return
    with console.status(description):
        yield
