"""Torch modules and exported programs, through torch's ONNX exporter."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from compress.errors import ModelError, blame
from compress.source.examples import Examples
from compress.source.exporting import Exporting, export_program, quiet
from compress.source.reference import require_trust


def from_torch(module: Any, examples: Examples) -> ir.Model:
    """Export a torch module or an exported program to a graph; parameters keep their names.

    Every axis is left open that differs between calibration batches or that the module takes at another
    size. The graph is then run beside the module on the example, on the calibration batches and on other
    sizes of each open axis; an axis along which the two differ is closed again. A program keeps the axes it
    was exported with.

    Raises:
        ModelError: `module` is neither, torch cannot export it (the message quotes torch's reason), or the
            graph does not give the module's results.
    """
    if isinstance(module, torch.export.ExportedProgram):
        return export_program(module)
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"{type(module).__name__} is not a model; give a torch.nn.Module, an ONNX model or a path to one"
        )
    names = [name for name in parameters(module) if name not in ("args", "kwargs")]
    batches = examples.by_name(names)
    batches += examples.others(batches[0], names)
    return Exporting(module.eval().cpu(), batches, examples.batch_axis).model()


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
