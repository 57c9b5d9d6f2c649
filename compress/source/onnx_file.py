"""ONNX files, and ONNX models in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from compress.errors import ModelError, first_line
from compress.graph import files
from compress.graph.session import session

UNREADABLE = (ir.serde.SerdeError, ValueError, TypeError, KeyError)
"""What onnx_ir raises on a message that says what ONNX does not allow."""


def read_onnx(path: Path) -> ir.Model:
    """Read an ONNX file, checked before anything else looks at it; what ONNX Runtime runs is taken.

    Raises:
        ModelError: the file is empty, truncated or not valid ONNX, or its external data are
            missing, too short or outside the file's folder.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
        if not proto.graph.node and not proto.graph.output:
            raise ModelError(f"{path}: holds no graph; the file is empty or cut short")
        _check_external_data(path, proto)
        model = files.read(path)
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX file, or is cut short") from error
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise ModelError(f"{path}: is not valid ONNX: {first_line(error)}") from error
    if not files.is_large(model):
        model = ir.external_data.load_to_model(model)
    _check(model, os.fspath(path))
    return model


def read_proto(proto: onnx.ModelProto) -> ir.Model:
    """Return the graph of a model that `onnx` holds in memory.

    Raises:
        ModelError: it is not valid.
    """
    try:
        model = files.read(proto)
    except UNREADABLE as error:
        raise ModelError(f"the model is not valid ONNX: {first_line(error)}") from error
    _check(model, "the model")
    return model


def read_graph(graph: ir.Model) -> ir.Model:
    """Return a copy of a model that `onnx_ir` holds in memory.

    Raises:
        ModelError: it is not valid.
    """
    model = files.mended(graph.clone())
    _check(model, "the model")
    return model


def _check(model: ir.Model, name: str) -> None:
    """Refuse a model that neither ONNX's checker nor ONNX Runtime takes."""
    fault = files.fault(model)
    if not fault:
        return
    try:
        session(model)
    except ModelError as error:
        raise ModelError(f"{name}: is not valid ONNX: {fault}") from error


def _check_external_data(path: Path, proto: onnx.ModelProto) -> None:
    folder = path.parent.resolve()
    for tensor in filter(uses_external_data, _tensors(proto)):
        what = f"{path}: external data of {tensor.name!r}"
        fields = {entry.key: entry.value for entry in tensor.external_data}
        if not all(fields.get(key, "0").isdecimal() for key in ("offset", "length")):
            raise ModelError(f"{what}: offset and length must be numbers")
        info = ExternalDataInfo(tensor)
        file = (folder / info.location).resolve()
        if not file.is_relative_to(folder):
            raise ModelError(f"{what} lie outside the model's folder: {info.location}")
        if not file.is_file():
            raise ModelError(f"{what} are missing: {file}")
        needed = -(-math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth // 8)
        if min(file.stat().st_size - (info.offset or 0), info.length or needed) < needed:
            raise ModelError(f"{what} are cut short: {file}")


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield every tensor in a message, those of subgraphs, attributes and functions included."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _tensors(inner)
