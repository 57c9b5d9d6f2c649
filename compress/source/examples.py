"""Inputs that a torch module is exported with, and which of their axes may change in size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from compress.data import Data, Feeds, as_array
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

    def __bool__(self) -> bool:
        return self._given is not None or self._calibration is not None

    def by_name(self, names: list[str]) -> list[Feeds]:
        """Return up to `BATCHES_LOOKED_AT` examples; unnamed inputs get the leading `names`.

        Raises:
            ModelError: there are no examples, too many inputs, or an input that is not an array.
        """
        batches: Iterable[Any] = ()
        if self._given is not None:
            batches = [self._given]
        elif self._calibration is not None:
            batches = (inputs for inputs, _ in itertools.islice(self._calibration.raw(), BATCHES_LOOKED_AT))
        examples = [_by_name(inputs, names) for inputs in batches]
        if not examples:
            raise ModelError("exporting a torch module needs example inputs or calibration data")
        return examples


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


def dynamic_axes(examples: list[Feeds]) -> dict[str, dict[int, str]]:
    """Return a name for each axis that may change in size, by input.

    These are the first axis (the batch), the second of integer inputs (tokens), and those whose size
    differs between the examples.
    """
    axes: dict[str, dict[int, str]] = {}
    for name, first in examples[0].items():
        axes[name] = {0: "batch"} if first.ndim else {}
        if first.dtype.kind in "iu" and first.ndim == 2:
            axes[name][1] = "sequence"
        for axis in range(1, first.ndim):
            if len({example[name].shape[axis] for example in examples}) > 1:
                axes[name].setdefault(axis, f"{name}_{axis}")
    return axes
