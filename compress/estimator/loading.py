"""ONNX files read without their weights, which stay in the file until they are needed."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from compress.codec.wire import hollow, mapped, tensors
from compress.errors import ModelError

LARGE = 16384
"""Bytes of an initializer above which its data stay in the file."""


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Return the model of a file; its large weights stay there, as if they were external data.

    Raises:
        ModelError: the file cannot be read, or is not an ONNX file.
    """
    path = Path(path)
    proto = onnx.ModelProto()
    try:
        with mapped(path) as data:
            proto.ParseFromString(_without_weights(data, path.name))
        model = ir.from_proto(proto)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX file: {error}") from error
    if not model.graph.outputs:
        raise ModelError(f"{path}: not an ONNX file: the graph has no outputs")
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def _without_weights(data: mmap.mmap, name: str) -> bytes:
    """Return the file's bytes with large raw data replaced by references to the file itself."""
    large = [each for each in tensors(data) if each.is_initializer and each.raw and each.raw[1] > LARGE]
    return hollow(data, {each.start: (name, *each.raw) for each in large if each.raw})
