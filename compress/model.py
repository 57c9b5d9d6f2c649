"""The model that passes work on: an ONNX graph, its data, and the record of what was done to it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compress import trainable, units
from compress.changes import Change, Changes
from compress.data import DEFAULT, Data, Feeds
from compress.errors import DataError
from compress.graph import defaults, files
from compress.graph.normalise import normalise
from compress.graph.opsets import opset, raised
from compress.graph.session import session

if TYPE_CHECKING:
    import onnxruntime as ort

    from compress.results import Making
    from compress.trainable import Trainable


class Model:
    """An ONNX graph (`onnx_ir.Model`), its data and its lineage.

    Attributes:
        ir: the model; passes edit ``model.graph``, which is ``model.ir.graph``.
        calibration: data that passes may read, or None.
        evaluation: data that only scores read, or None.
        making: what each pass has cost on the machine that ran it.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        calibration: Data | None = None,
        evaluation: Data | None = None,
        changes: Iterable[Change] = (),
        making: Iterable[Making] = (),
        original: Model | None = None,
    ) -> None:
        self.ir = model
        self.calibration = calibration
        self.evaluation = evaluation
        self._changes = Changes(changes)
        self.making = tuple(making)
        self._original = original

    def __repr__(self) -> str:
        ends = (", ".join(map(_described, values)) for values in (self.graph.inputs, self.graph.outputs))
        done = ", ".join(dict.fromkeys(change.by for change in self.changes if change.action))
        parts = [
            f"{' → '.join(ends)}",
            f"{units.count(len(self.graph), 'node')}, {units.si(self.weight_bytes, 'B')} of weights",
            *([f"after {done}"] if done else []),
        ]
        return f"Model({'; '.join(parts)})"

    @property
    def graph(self) -> ir.Graph:
        """The graph itself."""
        return self.ir.graph

    @property
    def changes(self) -> Changes:
        """What every pass did to every layer, in order; any iterable of changes may be assigned."""
        return self._changes

    @changes.setter
    def changes(self, changes: Iterable[Change]) -> None:
        self._changes = Changes(changes)

    @property
    def original(self) -> Model:
        """The model before the first pass, in the form that passes expect; itself, if there was none."""
        return self._original or self

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers as stored, 4-bit types at half a byte."""
        return files.weight_bytes(self.ir)

    def copy(self) -> Model:
        """Return a model whose graph can be edited without touching this one; tensors are shared."""
        return Model(
            self.ir.clone(),
            calibration=self.calibration,
            evaluation=self.evaluation,
            changes=self.changes,
            making=self.making,
            original=self._original,
        )

    def prepared(self, needs_opset: int = 0) -> Model:
        """Return a copy in the form that passes expect, at that version of ONNX's operators or a newer one.

        Inputs with a default are plain inputs in it, so that nothing takes their defaults for constants;
        `compress.graph.defaults.release` gives them back.

        Raises:
            ModelError: its operator set cannot be raised.
        """
        result = self.copy()
        if not self.is_prepared:
            result.ir = normalise(result.ir)
        result.ir = raised(result.ir, needs_opset)
        defaults.hold(result.ir)
        if self._original is None:
            result._original = Model(
                result.ir.clone(), calibration=self.calibration, evaluation=self.evaluation
            )
        return result

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators; 0 if the graph has none."""
        return opset(self.ir)

    @property
    def is_prepared(self) -> bool:
        """Whether a pass has changed the graph, so that it has the form that passes expect."""
        return any(change.action for change in self.changes)

    def batches(self) -> Iterator[Feeds]:
        """Yield the calibration feeds.

        Raises:
            DataError: there are none, or a batch does not fit the model.
        """
        if self.calibration is None:
            raise DataError(
                "this needs calibration data; load the model with calibration=..., or name it in the recipe"
            )
        return self.calibration.feeds(self.graph.inputs)

    def to_torch(self) -> Trainable:
        """Return the graph as a `torch.nn.Module`, called with input tensors by name.

        Raises:
            ModelError: a node has no counterpart in torch; the message names it.
        """
        return trainable.Trainable(self.prepared().ir)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model as ONNX, whole or not at all; weights over 1.5 GB go to ``<name>.data`` beside it.

        Raises:
            StoreError: the file could not be written; nothing is left behind.
        """
        return files.save(self.ir, path)

    def run(self, feeds: Feeds) -> list[np.ndarray]:
        """Run the model through ONNX Runtime with its default optimizations.

        The session is made at the first call; edit the graph before it, or work on a `copy`.
        """
        held = {
            value.name: value.meta[DEFAULT].numpy() for value in self.graph.inputs if DEFAULT in value.meta
        }
        outputs: list[np.ndarray] = self._session.run(None, held | feeds)
        return outputs

    def release(self) -> None:
        """Give back the memory of the runtime's session; the next `run` makes a new one."""
        self.__dict__.pop("_session", None)

    @cached_property
    def _session(self) -> ort.InferenceSession:
        return session(self.ir)


def _described(value: ir.Value) -> str:
    """Return a value's name, type and shape."""
    return f"{value.name} {value.dtype}{'' if value.shape is None else value.shape}"
