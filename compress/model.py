"""The one thing that flows: an ONNX graph with its data and the account of what was done to it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compress.data import Data, Feeds
from compress.errors import DataError, ModelError, StoreError

if TYPE_CHECKING:
    import onnxruntime as ort

    from compress.graph.trainable import Trainable
    from compress.passes.base import Change

EXTERNAL_ABOVE_BYTES = 1_500_000_000
"""A model larger than this keeps its weights beside it: one protobuf message ends at 2 GB."""


class Model:
    """An ONNX graph (`onnx_ir.Model`), its data and its lineage.

    Attributes:
        ir: the model; passes edit ``model.graph``, which is ``model.ir.graph``.
        calibration: data that passes may read, or None.
        evaluation: data that only scores read, or None.
        changes: what every pass did to every layer, in order.
        original: the model before the first pass; the reference that agreement is measured against.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        calibration: Data | None = None,
        evaluation: Data | None = None,
        changes: Sequence[Change] = (),
        original: Model | None = None,
    ) -> None:
        self.ir = model
        self.calibration = calibration
        self.evaluation = evaluation
        self.changes = tuple(changes)
        self._original = original

    @property
    def graph(self) -> ir.Graph:
        """The graph itself."""
        return self.ir.graph

    @property
    def original(self) -> Model:
        """The model before the first pass (itself, if nothing was done)."""
        return self._original or self

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers as stored, 4-bit types at half a byte."""
        return sum(
            value.const_value.nbytes
            for graph in self.ir.graphs()
            for value in graph.initializers.values()
            if value.const_value is not None
        )

    def copy(self) -> Model:
        """Return a model whose graph can be edited without touching this one; tensors are shared."""
        return Model(
            self.ir.clone(),
            calibration=self.calibration,
            evaluation=self.evaluation,
            changes=self.changes,
            original=self.original,
        )

    def batches(self) -> Iterator[Feeds]:
        """Yield the calibration feeds.

        Raises:
            DataError: there are none, or a batch does not fit the model.
        """
        if self.calibration is None:
            raise DataError("this needs calibration data, and the model came without")
        return (feeds for feeds, _ in self.calibration.batches(self.graph.inputs))

    def to_torch(self) -> Trainable:
        """Return the graph as a `torch.nn.Module`, called with input tensors by name.

        Raises:
            ModelError: a node has no counterpart in torch; the message names it.
        """
        from compress.graph.trainable import Trainable

        return Trainable(self.ir)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model as ONNX, whole or not at all; weights over 1.5 GB go to ``<name>.data`` beside it.

        Raises:
            StoreError: the file could not be written; nothing is left behind.
        """
        path = Path(path)
        data = f"{path.name}.data" if self.weight_bytes > EXTERNAL_ABOVE_BYTES else None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
                ir.save(_bare(self.ir), Path(folder, path.name), external_data=data)
                for name in filter(None, (data, path.name)):
                    Path(folder, name).replace(path.with_name(name))
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
        return path

    def run(self, feeds: Feeds) -> list[np.ndarray]:
        """Run the model through ONNX Runtime with its default optimizations.

        The session is made at the first call; edit the graph before it, or work on a `copy`.
        """
        outputs: list[np.ndarray] = self._session.run(None, feeds)
        return outputs

    def release(self) -> None:
        """Give back the memory of the runtime's session; the next `run` makes a new one."""
        self.__dict__.pop("_session", None)

    @cached_property
    def _session(self) -> ort.InferenceSession:
        return session(self)


def _bare(model: ir.Model) -> ir.Model:
    """Return the model without types and shapes of inner values: whoever reads the file infers them."""
    bare = model.clone()
    inner = {value for node in bare.graph for value in node.outputs}
    for value in (inner | {*bare.graph.initializers.values()}) - {*bare.graph.inputs, *bare.graph.outputs}:
        value.type = value.shape = None
        value.metadata_props.clear()
    return bare


def session(
    model: Model | str | os.PathLike[str],
    *,
    threads: int = 0,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    optimize: bool = True,
    optimized_to: str | os.PathLike[str] | None = None,
) -> ort.InferenceSession:
    """Return an ONNX Runtime session on a model or a file.

    Args:
        model: the model, or the path of an ONNX file.
        threads: threads of one operator; 0 leaves the choice to the runtime.
        providers: execution providers, most wanted first.
        optimize: whether the runtime may rewrite the graph; without, Q/DQ run one by one in float.
        optimized_to: where to write the graph that the runtime really runs.

    Raises:
        ModelError: the runtime does not take the model.
    """
    import onnxruntime as ort

    options = session_options(threads)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized_to is not None:
        options.optimized_model_filepath = os.fspath(optimized_to)
    if not isinstance(model, Model):
        return start(os.fspath(model), options, providers)
    if model.weight_bytes <= EXTERNAL_ABOVE_BYTES:
        return start(ir.to_proto(model.ir).SerializeToString(), options, providers)
    with tempfile.TemporaryDirectory() as folder:
        return start(os.fspath(model.save(Path(folder, "model.onnx"))), options, providers)


def session_options(threads: int = 0) -> ort.SessionOptions:
    """Return the options of every session here; `threads` of one operator, 0 for the runtime's choice."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Spinning threads steal the core from whatever is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def start(model: str | bytes, options: ort.SessionOptions, providers: Sequence[str]) -> ort.InferenceSession:
    """Return a session on a path or on a serialized model.

    Raises:
        ModelError: the runtime does not take the model.
    """
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as refusals

    try:
        return ort.InferenceSession(model, options, providers=list(providers))
    except (
        refusals.Fail,
        refusals.InvalidArgument,
        refusals.InvalidGraph,
        refusals.InvalidProtobuf,
        refusals.NoSuchFile,
        refusals.NotImplemented,
        refusals.RuntimeException,
    ) as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {error}") from error
