"""Logs of unexpected errors with their tracebacks: of a run, and of any command."""

from __future__ import annotations

import logging
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.errors import first_line, writing
from compress.version import __version__

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


def unexpected(error: BaseException) -> str:
    """Keep the traceback of an error that nobody foresaw in a file; return what to tell the user."""
    lines = traceback.format_exception(error)
    environment = f"compress {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
    with tempfile.NamedTemporaryFile(
        "w", prefix="compress-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
    ) as file:
        file.write(environment + shlex.join(sys.argv) + "\n\n" + "".join(lines))
    what = f"{type(error).__name__}: {first_line(error)}".rstrip(": ")
    return f"{what}; this is a fault of compress: please report it to its authors with {file.name}"


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("compress")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
