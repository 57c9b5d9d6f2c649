"""Whether another form of a model is still the model: what both give on the same inputs, value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from compress.data import DEFAULT, Data
from compress.diagnose.samples import random_feeds
from compress.errors import ModelError
from compress.graph.session import RUNTIME_ERRORS, session
from compress.numerics.fills import yardstick

TOLERANCES = {"float16": 2e-2, "float64": 1e-7}
"""Largest difference to the largest number of an output, where arithmetic is only done in another order."""
TOLERANCE = 1e-4
"""The same for float32."""


def check(before: ir.Model, after: ir.Model, data: Data | None, what: str) -> None:
    """Refuse a model whose outputs are not those of the model it was made of.

    Args:
        before: the model as it was brought.
        after: the same in another form.
        data: batches, of which the first is run; random numbers of the inputs' types if there are none.
        what: what was done to the model, for the message.

    Raises:
        ModelError: an output differs; the message says where and by how much.
        DataError: the data do not fit the model.
    """
    if data is not None:
        feeds = data.first(before.graph.inputs)
        run = session(before).run
        wanted = run(None, feeds)
    else:
        try:
            feeds = random_feeds(before)
            run = session(before).run
            wanted = run(None, feeds)
        except RUNTIME_ERRORS:
            return  # random numbers are not always inputs that a model can do anything with
    again: list[Any] = []
    held = {value.name or "": value.meta[DEFAULT] for value in after.graph.inputs if DEFAULT in value.meta}
    given = {name: default.numpy() for name, default in held.items()} | feeds
    try:
        got = session(after).run(None, given)
    except ModelError as error:
        raise ModelError(f"{what} gives a graph that does not run: {error}") from error
    for place, (one, other) in enumerate(zip(wanted, got, strict=True)):
        difference = _difference(one, other)
        if difference:
            again = again or run(None, feeds)
            if not _difference(one, again[place]):  # else it draws random numbers
                name = before.graph.outputs[place].name
                raise ModelError(f"{what} would change output {name!r}: {difference}")


def _difference(wanted: Any, got: Any) -> str:
    """Return the first value that differs beyond rounding, and by how much; empty if none does."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return _difference([*wanted, *wanted.values()], [*got, *got.values()])
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        return next(filter(None, map(_difference, wanted, got)), "")
    if isinstance(wanted, float):  # a number in a dictionary, which was float32
        wanted, got = np.array([wanted], np.float32), np.array([got], np.float32)
    if not isinstance(wanted, np.ndarray) or not isinstance(got, np.ndarray):
        return "" if repr(wanted) == repr(got) else f"{got!r} instead of {wanted!r}"
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return f"{got.dtype} {list(got.shape)} instead of {wanted.dtype} {list(wanted.shape)}"
    wrong = _far(wanted, got) if wanted.dtype.kind == "f" else wanted != got
    if not wrong.any():
        return ""
    place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return f"{got[place]} instead of {wanted[place]} at {[int(each) for each in place]}"


def _far(wanted: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Tell which numbers differ by more than arithmetic in another order explains."""
    finite = np.isfinite(wanted) & np.isfinite(got)
    least = TOLERANCES.get(wanted.dtype.name, TOLERANCE) * yardstick(wanted)
    off = np.abs(np.subtract(wanted, got, where=finite, out=np.zeros(wanted.shape, np.float64)))
    same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
    return np.asarray(np.where(finite, off > least, ~same))
