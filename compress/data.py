"""Calibration and evaluation data: batches that can be read again, checked as they are read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from compress import units
from compress.errors import DataError, blame, did_you_mean

Feeds: TypeAlias = dict[str, np.ndarray]
"""Arrays by input name; an input that is a sequence has a list of arrays."""
Batches: TypeAlias = Iterable[Any] | Callable[[], Iterable[Any]]
"""A list of batches, or a function that returns an iterator of them. A batch is ``{input: array}``,
or ``(inputs, labels)``; with one input the array alone will do."""
BatchAxis: TypeAlias = "Literal['auto'] | int | Mapping[str, int | None] | None"
"""The axis of each input along which the samples of a batch lie: one number for all, or by input name; None
where there is no batch. "auto" finds it from names and sizes, and tries it on the model."""

DEFAULT = "default"
"""Where an input keeps its default while a pass works; see `compress.graph.defaults`."""

_END = object()


class Data:
    """Batches for a model's inputs, read afresh by every loop over them.

    Args:
        source: a list of batches, or a function that starts a new iteration. A one-shot iterator
            is refused: passes read data more than once.
        kind: "calibration" or "evaluation", for messages.
        batch_axis: the axis of each input that is the batch, as `BatchAxis` says.
    """

    def __init__(self, source: Batches, kind: str = "calibration", batch_axis: BatchAxis = "auto") -> None:
        if isinstance(source, Iterator):
            raise DataError(
                f"{kind} data: a generator can be read only once; "
                "give a list of batches, or the function that makes the generator"
            )
        self.source = source
        self.kind = kind
        self.batch_axis = batch_axis

    def __repr__(self) -> str:
        if callable(self.source):
            return (
                f"Data({self.kind}, from {getattr(self.source, '__qualname__', type(self.source).__name__)})"
            )
        batches = (
            f", {units.count(len(self.source), 'batch', 'batches')}" if isinstance(self.source, Sized) else ""
        )
        return f"Data({self.kind}{batches})"

    def batches(self, inputs: Iterable[ir.Value]) -> Iterator[tuple[Feeds, Any]]:
        """Yield ``(feeds, labels)``, checked against the model's `inputs`; labels may be None.

        Raises:
            DataError: a batch misses an input, has an unknown one, a wrong rank, size or type, or
                holds a value that is not finite. The message names batch and input.
        """
        expected = {value.name or "": value for value in inputs}
        batch_number = -1
        for batch_number, (raw, labels) in enumerate(self.raw()):
            yield _checked(raw, expected, f"{self.kind} data, batch {batch_number}"), labels
        if batch_number < 0:
            raise DataError(f"{self.kind} data: there are no batches")

    def feeds(self, inputs: Iterable[ir.Value]) -> Iterator[Feeds]:
        """Yield the batches without their labels, checked in the same way."""
        return (feeds for feeds, _ in self.batches(inputs))

    def first(self, inputs: Iterable[ir.Value]) -> Feeds:
        """Return the feeds of the first batch."""
        return next(self.feeds(inputs))

    def limited(self, count: int) -> Data:
        """Return the same data, stopped after `count` batches."""
        return self.over(lambda: itertools.islice(self._start(), count))

    def over(self, source: Batches) -> Data:
        """Return data of the same kind and batch axis from another source of batches."""
        return Data(source, self.kind, self.batch_axis)

    def raw(self) -> Iterator[tuple[Any, Any]]:
        """Yield ``(inputs, labels)`` as the source gives them, unchecked; labels may be None."""
        with blame(f"{self.kind} data", DataError):
            batches = iter(self._start())
        while True:
            with blame(f"{self.kind} data", DataError):
                batch = next(batches, _END)
            if batch is _END:
                return
            yield batch if isinstance(batch, tuple) and len(batch) == 2 else (batch, None)

    def _start(self) -> Iterable[Any]:
        return self.source() if callable(self.source) else self.source


def _checked(raw: Any, expected: dict[str, ir.Value], where: str) -> Feeds:
    optional = {name for name, value in expected.items() if value.const_value is not None}
    defaults = {
        name: value.meta[DEFAULT].numpy() for name, value in expected.items() if DEFAULT in value.meta
    }
    if not isinstance(raw, Mapping):
        needed = sorted(expected.keys() - defaults.keys() - optional)
        if len(needed) != 1:
            raise DataError(f"{where}: the model has inputs {needed}; give a dict of arrays by name")
        raw = {needed[0]: raw}
    for name in raw:
        if name not in expected:
            raise DataError(f"{where}: the model has no input {name!r}{did_you_mean(name, expected)}")
    raw = defaults | dict(raw)
    missing = expected.keys() - raw.keys() - optional
    if missing:
        raise DataError(f"{where}: input {min(missing)!r} is missing")
    return {
        name: _content(raw[name], value, f"{where}, input {name!r}")
        for name, value in expected.items()
        if name in raw
    }


def shapes(feeds: Feeds) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input that is a tensor."""
    return {name: array.shape for name, array in feeds.items() if isinstance(array, np.ndarray)}


def as_array(raw: Any) -> np.ndarray:
    """Return a batch's array, list or torch tensor (on any device, with a gradient or not) as an array."""
    return np.asarray(raw.detach().cpu() if hasattr(raw, "detach") else raw)


def _content(raw: Any, value: ir.Value, where: str) -> Any:
    """Return what an input takes: an array, a list of arrays for a sequence, or nothing for an optional."""
    if isinstance(value.type, ir.OptionalType):
        if raw is None:
            return None
        value = ir.Value(type=value.type.elem_type, shape=value.shape)
    if not isinstance(value.type, ir.SequenceType):
        return _array(raw, value, where)
    if not isinstance(raw, list | tuple):
        raise DataError(f"{where}: the model takes a sequence; give a list of arrays")
    return [_array(each, value, f"{where}, item {number}") for number, each in enumerate(raw)]


def _array(raw: Any, value: ir.Value, where: str) -> np.ndarray:
    array = as_array(raw)
    if value.dtype is not None:
        wanted = value.dtype.numpy()
        if array.dtype != wanted:
            if not np.can_cast(array.dtype, wanted, "same_kind"):
                raise DataError(f"{where}: type {array.dtype} where the model takes {wanted}")
            with np.errstate(over="ignore"):  # what becomes infinite is refused below
                array = array.astype(wanted)
    if value.shape is not None:
        sizes = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        fits = len(sizes) == array.ndim and all(
            want in (None, have) for want, have in zip(sizes, array.shape, strict=True)
        )
        if not fits:
            shown = "x".join("?" if size is None else str(size) for size in sizes)
            raise DataError(f"{where}: shape {'x'.join(map(str, array.shape))} where the model takes {shown}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: holds NaN or infinite values")
    return array
