"""Torch modules and exported programs, through torch's ONNX exporter."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from compress.errors import ModelError, blame, first_line
from compress.graph.normalise import normalise, strip
from compress.source.examples import Examples, dynamic_axes
from compress.source.reference import require_trust


def from_torch(module: Any, examples: Examples) -> ir.Model:
    """Export a torch module or an exported program to a graph; parameters keep their names.

    Dynamic are the batch axis, the second axis of integer inputs (tokens), and every axis whose size
    differs between calibration batches. A program keeps the axes it was exported with.

    Raises:
        ModelError: `module` is neither, or torch cannot export it; the message quotes torch's reason.
    """
    if isinstance(module, torch.export.ExportedProgram):
        return _bare(_export(module, {}, {}))
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"{type(module).__name__} is not a model; give a torch.nn.Module, an ONNX model or a path to one"
        )
    batches = examples.by_name([name for name in parameters(module) if name not in ("args", "kwargs")])
    # torch.export takes a size of one for a constant: show it two of everything that may change.
    inputs = {
        name: torch.from_numpy(np.repeat(array, 2, axis=0) if array.ndim and len(array) == 1 else array)
        for name, array in batches[0].items()
    }
    return _bare(_export(module.eval().cpu(), inputs, dynamic_axes(batches)))


def read_pt2(path: Path, *, trust: bool) -> ir.Model:
    """Read a program that ``torch.export.save`` wrote.

    Raises:
        TrustError: `trust` is not given; the file can hold code.
        ModelError: the file cannot be read or exported.
    """
    require_trust(trust, f"{path}: loading a .pt2 file can run code in it")
    with quiet(), blame(f"{path}: cannot be read", ModelError):
        program = torch.export.load(path)
    return from_torch(program, Examples(None))


def parameters(module: torch.nn.Module) -> list[str]:
    """Return the names of the inputs that a module is called with."""
    return list(inspect.signature(module.forward).parameters)


def _export(
    module: torch.nn.Module | torch.export.ExportedProgram,
    inputs: dict[str, torch.Tensor],
    axes: dict[str, dict[int, str]],
) -> ir.Model:
    with quiet():
        try:
            program = torch.onnx.export(
                module,
                kwargs=inputs,
                dynamic_shapes=axes or None,
                dynamo=True,
                optimize=False,
                opset_version=21,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ModelError(f"torch cannot export the module: {first_line(cause)}") from error
    assert program is not None  # with dynamo=True a program is always returned
    return program.model


def _bare(model: ir.Model) -> ir.Model:
    """Normalise what the exporter made, without its notes: a tenth of a small file, with local paths."""
    model = normalise(model)
    strip(model)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress and the registration notes of an exporter off the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
