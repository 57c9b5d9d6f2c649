"""The kinds of source that a model may come from: torch module, ONNX model, file, folder or function."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from compress import source as kinds
from compress.data import BatchAxis, Batches, Data
from compress.errors import ModelError, blame
from compress.model import Model
from compress.source.config import read_config
from compress.source.examples import Examples
from compress.source.reference import call, locate


def load(
    source: Any,
    *,
    calibration: Batches | Data | None = None,
    evaluation: Batches | Data | None = None,
    batch_axis: BatchAxis = "auto",
    example_inputs: Any = None,
    trust: bool = False,
    home: str | os.PathLike[str] = ".",
) -> Model:
    """Bring a model in.

    Args:
        source: a ``torch.nn.Module``, an ``onnx.ModelProto``, an ``onnx_ir.Model``, a `Model`, or a path:
            an ``.onnx`` file, a ``.pt2`` file, a Hugging Face folder (config.json and safetensors), or
            ``file.py:function`` whose function returns any of these.
        calibration: batches that passes may read: a list, or a function that returns an iterator.
        evaluation: batches that only scores read.
        batch_axis: the axis of each input along which the samples of a batch lie: one number for all inputs,
            or by input name, None for an input without; None where the data have no batch. If left out, it
            is taken from names and sizes and tried on the model; without certainty nothing is cut.
        example_inputs: inputs to export a torch module with, by name or in order; the first
            calibration batch if left out.
        trust: whether code that comes with the model may run (``.pt2``, functions outside `home`).
        home: the folder whose Python files the user already runs, such as the recipe's.

    Raises:
        ModelError: the model cannot be read, is not valid, or cannot be exported.
        TrustError: reading it would run code that was not trusted.
        DataError: the data cannot be read more than once.
    """
    calibration = _data(calibration, "calibration", batch_axis)
    evaluation = _data(evaluation, "evaluation", batch_axis)
    graph = _graph(source, Examples(example_inputs, calibration), trust=trust, home=Path(home))
    return Model(graph, calibration=calibration, evaluation=evaluation)


def _data(batches: Batches | Data | None, kind: str, batch_axis: BatchAxis) -> Data | None:
    if isinstance(batches, Data):
        return batches if batch_axis == "auto" else Data(batches.source, kind, batch_axis)
    return None if batches is None else Data(batches, kind, batch_axis)


def _graph(source: Any, examples: Examples, *, trust: bool, home: Path) -> ir.Model:
    if isinstance(source, Model):
        return source.ir.clone()
    if isinstance(source, ir.Model):
        return kinds.read_graph(source)
    if isinstance(source, onnx.ModelProto):
        return kinds.read_proto(source)
    if isinstance(source, str | os.PathLike):
        return _graph_at(os.fspath(source), examples, trust=trust, home=home)
    return kinds.from_torch(source, examples)


def _graph_at(reference: str, examples: Examples, *, trust: bool, home: Path) -> ir.Model:
    if ".py:" in reference:
        function = call(reference, home=home, trust=trust)
        with blame(reference, ModelError):
            made = function()
        return _graph(made, examples, trust=trust, home=home)
    path = locate(reference, home)
    if path.is_dir():
        return kinds.read_folder(path, read_config(path, trust=trust), examples, trust=trust)
    if path.suffix == ".pt2":
        return kinds.read_pt2(path, trust=trust)
    return kinds.read_onnx(path)
