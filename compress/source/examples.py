"""Inputs that a torch module is exported with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from compress.data import BatchAxis, Data, Feeds, as_array
from compress.errors import ModelError

BATCHES_LOOKED_AT = 8
"""Calibration batches compared to find which axes change in size."""


class Examples:
    """Inputs to export with: given ones, or those of the first calibration batches.

    Args:
        given: the inputs of one call, by name or in order; or None.
        calibration: the data whose batches serve where no inputs are given; or None.
    """

    def __init__(self, given: Any, calibration: Data | None = None) -> None:
        self._given = given
        self._calibration = calibration

    @property
    def batch_axis(self) -> BatchAxis:
        """What the user says of the batch axis."""
        return self._calibration.batch_axis if self._calibration is not None else "auto"

    def __bool__(self) -> bool:
        return self._given is not None or self._calibration is not None

    def by_name(self, names: list[str]) -> list[Feeds]:
        """Return up to `BATCHES_LOOKED_AT` examples; unnamed inputs get the leading `names`.

        Raises:
            ModelError: there are no examples, too many inputs, or an input that is not an array.
        """
        if self._given is not None:
            return [_by_name(self._given, names)]
        examples = [_by_name(inputs, names) for inputs in self._batches()]
        if not examples:
            raise ModelError("exporting a torch module needs example inputs or calibration data")
        return examples

    def others(self, first: Feeds, names: list[str]) -> list[Feeds]:
        """Return the calibration batches beside given inputs, as far as they are inputs of the same kind."""
        if self._given is None:
            return []
        found = [_by_name(inputs, names) for inputs in self._batches()]
        return [
            {name: array.astype(first[name].dtype, copy=False) for name, array in each.items()}
            for each in found
            if {name: array.ndim for name, array in each.items()}
            == {name: array.ndim for name, array in first.items()}
        ]

    def _batches(self) -> Iterable[Any]:
        if self._calibration is None:
            return ()
        return (inputs for inputs, _ in itertools.islice(self._calibration.raw(), BATCHES_LOOKED_AT))


def _by_name(inputs: Any, names: list[str]) -> Feeds:
    if isinstance(inputs, Mapping):
        arrays = {name: as_array(value) for name, value in inputs.items()}
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf":
                raise ModelError(f"example input {name!r}: {type(inputs[name]).__name__} is not an array")
        return arrays
    ordered = inputs if isinstance(inputs, tuple | list) else (inputs,)
    if len(ordered) > len(names):
        raise ModelError(f"{len(ordered)} example inputs for a module that takes {len(names)}: {names}")
    return _by_name(dict(zip(names, ordered, strict=False)), names)
