"""Data that a recipe or a command names."""

from __future__ import annotations

from pathlib import Path

from compress.data import BatchAxis, Data
from compress.source.reference import call


def read_data(reference: str, kind: str, *, home: Path, trust: bool, batch_axis: BatchAxis = "auto") -> Data:
    """Return the data that the function ``file.py:function`` yields.

    Args:
        reference: the function; the path is relative to `home`.
        kind: purpose of the data, for messages.
        home: the folder whose code the user already runs.
        trust: whether code outside of `home` may run.
        batch_axis: the axis of each input that is the batch.

    Raises:
        InputError: there is no such file or function, or the file fails as it is imported.
        TrustError: the file lies outside `home` and `trust` is not given.
    """
    return Data(call(reference, home=home, trust=trust), kind, batch_axis)
