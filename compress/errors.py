"""Every error the toolkit raises on purpose.

::

    CompressError                 exit 1   something failed
    ├── InputError                exit 2   what the user gave cannot be used
    │   ├── RecipeError                    the recipe, with file:line:column
    │   ├── ModelError                     a model file or module
    │   │   └── FatalModelError            one that ends ONNX Runtime's process
    │   ├── DataError                      calibration or evaluation data
    │   ├── HardwareError                  a hardware profile
    │   │   └── DoesNotRunError            a model that this hardware cannot run
    │   └── TrustError                     code that the user has not said to trust
    ├── PassError                 exit 1   a pass could not do its work
    ├── StoreError                exit 1   results could not be written
    └── LimitError                exit 3   a stated limit was not met

Messages say what is wrong, where, and what to do next; the command line prints
them without a traceback.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ValidationError

LISTED = 30
"""Known names that a message lists at most; a graph has thousands."""


class CompressError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 1


class InputError(CompressError):
    """What the user gave cannot be used."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe is wrong; the message begins with ``file:line:column``."""


class ModelError(InputError):
    """A model file or module cannot be read, or is not valid."""


class FatalModelError(ModelError):
    """ONNX Runtime ends its process as it loads a model."""


class DataError(InputError):
    """Calibration or evaluation data do not fit the model, or hold values that are not finite."""


class HardwareError(InputError):
    """A hardware profile does not exist or is not valid."""


class DoesNotRunError(HardwareError):
    """A model cannot run on a piece of hardware: a number type that it lacks, or too little memory."""


class TrustError(InputError):
    """Running code named by the input needs the user's explicit trust."""


class PassError(CompressError):
    """A pass could not do its work."""


class StoreError(CompressError):
    """A result could not be written or read back."""


class LimitError(CompressError):
    """A limit that the recipe states was not met."""

    exit_code = 3


@contextmanager
def blame(what: str, kind: type[CompressError]) -> Iterator[None]:
    """Turn whatever the user's own code raises into an error of `kind` that names `what` and the line."""
    try:
        yield
    except CompressError:
        raise
    except Exception as error:  # the code is not ours: it may raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        raise kind(f"{what}: {type(error).__name__}: {error} ({where})") from error


@contextmanager
def about(what: str) -> Iterator[None]:
    """Turn whatever arithmetic on a malformed part of a model raises into a `ModelError` that names it."""
    try:
        yield
    except CompressError:
        raise
    except Exception as error:  # sizes and attributes that fit nothing fail in as many ways as there are
        cause = first_cause(error)
        raise ModelError(f"{what} is malformed: {first_line(cause) or type(cause).__name__}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure of the operating system into a `StoreError` that names the file, or else `path`."""
    try:
        yield
    except OSError as error:
        file = error.filename2 or error.filename or path
        raise StoreError(f"{file}: cannot be written: {error.strerror or error}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or the first of a list of them."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(choices[:LISTED]) + (f" and {len(choices) - LISTED} more" if choices[LISTED:] else "")
    return f"; known: {shown}" if choices else ""


def first_cause(error: BaseException) -> BaseException:
    """Return the error that was at the bottom of one: what packages raise on top of it only says where."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0]


def first_problem(error: ValidationError) -> str:
    """Return the place and the message of the first problem that pydantic found in a document."""
    first = error.errors()[0]
    return "".join(f"{part}: " for part in first["loc"]) + first["msg"]
