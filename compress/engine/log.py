"""The log of a run: unexpected errors with their tracebacks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.errors import writing

LOG_FILE = "log.txt"
"""The log of a run's folder; it is there only if something was logged."""


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Write what `compress` logs to a file, too; it replaces the log of an earlier run."""
    with writing(path):
        path.unlink(missing_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    with _attached(handler):
        yield


@contextmanager
def printed() -> Iterator[None]:
    """Print what `compress` logs to stderr, too."""
    with _attached(logging.StreamHandler()):
        yield


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("compress")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
