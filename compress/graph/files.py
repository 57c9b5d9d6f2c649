"""A graph on disk: one ONNX file, or two where its weights are too many for one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx_ir as ir

from compress.errors import StoreError
from compress.graph.edit import declare_domains

EXTERNAL_ABOVE_BYTES = 1_500_000_000
"""A model larger than this keeps its weights beside it: a protobuf message holds at most 2 GB."""


def weight_bytes(model: ir.Model) -> int:
    """Return the bytes of all initializers as stored, 4-bit types at half a byte."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def is_large(model: ir.Model) -> bool:
    """Tell whether the weights of a model go beside it."""
    return weight_bytes(model) > EXTERNAL_ABOVE_BYTES


def save(model: ir.Model, path: str | os.PathLike[str]) -> Path:
    """Write a model as ONNX, whole or not at all; weights over 1.5 GB go to ``<name>.data`` beside it.

    Raises:
        StoreError: the file could not be written; nothing is left behind.
    """
    path = Path(path)
    data = f"{path.name}.data" if is_large(model) else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
            declare_domains(model)
            ir.save(_bare(model), Path(folder, path.name), external_data=data)
            for name in filter(None, (data, path.name)):
                Path(folder, name).replace(path.with_name(name))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _bare(model: ir.Model) -> ir.Model:
    """Return the model without types and shapes of inner values: whoever reads the file infers them."""
    bare = model.clone()
    inner = {value for node in bare.graph for value in node.outputs}
    for value in (inner | {*bare.graph.initializers.values()}) - {*bare.graph.inputs, *bare.graph.outputs}:
        value.type = value.shape = None
        value.metadata_props.clear()
    return bare
