"""ONNX files, and ONNX models in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import Message
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from compress.errors import ModelError, first_cause, first_line
from compress.graph import files
from compress.graph.session import session

UNREADABLE = (RuntimeError, ValueError, TypeError, KeyError, AttributeError)
"""What onnx_ir raises on a message that says what ONNX does not allow."""


def read_onnx(path: Path) -> ir.Model:
    """Read an ONNX file, checked before anything else looks at it; what ONNX Runtime runs is taken.

    Raises:
        ModelError: as `open_onnx`.
    """
    model = open_onnx(path)
    return model if files.is_large(model) else ir.external_data.load_to_model(model)


def open_onnx(path: Path) -> ir.Model:
    """Read a checked ONNX file whose large weights stay in it, or in the files with its external data.

    Raises:
        ModelError: the file is empty, truncated or not valid ONNX, or its external data are
            missing, too short or outside the file's folder.
    """
    proto = files.message(path)
    if not proto.graph.node and not proto.graph.output:
        raise ModelError(f"{path}: holds no graph; the file is empty or cut short")
    with _refusing(os.fspath(path)):
        _check_data(path, proto)
        return _checked(files.understood(proto, path.parent), os.fspath(path))


def read_proto(proto: onnx.ModelProto) -> ir.Model:
    """Return the graph of a model that `onnx` holds in memory.

    Raises:
        ModelError: it is not valid.
    """
    with _refusing("the model"):
        _check_data(None, proto)
        return _checked(files.understood(proto), "the model")


def read_graph(graph: ir.Model) -> ir.Model:
    """Return a copy of a model that `onnx_ir` holds in memory.

    Raises:
        ModelError: it is not valid.
    """
    with _refusing("the model"):
        return _checked(files.mended(graph.clone()), "the model")


def _checked(model: ir.Model, name: str) -> ir.Model:
    """Return a model, unless neither ONNX's checker nor ONNX Runtime takes it."""
    fault = files.fault(model)
    if fault:
        _require_runtime(model, name, fault)
    return model


def _require_runtime(model: ir.Model, name: str, fault: str) -> None:
    """Refuse a model that ONNX Runtime does not take; weights are read only where a kernel needs them."""
    try:
        session(files.without_weights(model), optimize=False)
        return
    except ModelError:
        pass
    try:
        session(model)
    except ModelError as error:
        raise ModelError(f"{name}: is not valid ONNX: {fault}") from error


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn what onnx_ir raises on a message that cannot be into a `ModelError`."""
    try:
        yield
    except UNREADABLE as error:
        raise ModelError(f"{name}: is not valid ONNX: {first_line(first_cause(error))}") from error


def _check_data(path: Path | None, proto: onnx.ModelProto) -> None:
    """Refuse tensors whose data are missing or too short, be they in the message or elsewhere."""
    for tensor in _tensors(proto):
        if path is not None and uses_external_data(tensor):
            _check_external(path, tensor, _stored_bytes(tensor))
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != (needed := _stored_bytes(tensor)):
            held = f"{len(tensor.raw_data)} bytes where its shape and type make {needed}"
            raise ModelError(f"{path or 'the model'}: the data of {tensor.name!r} are cut short: {held}")


def _stored_bytes(tensor: onnx.TensorProto) -> int:
    """Return how many bytes hold a tensor of numbers; strings are never stored as bytes."""
    bits: int = math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
    return -(-bits // 8)


def _check_external(path: Path, tensor: onnx.TensorProto, needed: int) -> None:
    folder = path.parent.resolve()
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
