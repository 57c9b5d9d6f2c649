"""ONNX files without their weights: what the weights say is read when it is asked for."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir

from compress.errors import ModelError

LARGE = 16384
"""Bytes from which the data of an initializer stay in the file."""
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Numbers of ModelProto.graph, GraphProto.initializer and TensorProto.raw_data in onnx.proto."""


class _Field(NamedTuple):
    number: int
    start: int
    """Offset of the field's tag."""
    content: int
    """Offset of what the field holds, behind tag and length."""
    end: int


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Return the model of a file; large weights inside it are left there, as if they were external data.

    Raises:
        ModelError: the file cannot be read or is no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    proto = onnx.ModelProto()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            proto.ParseFromString(_without_weights(data, path.name))
        model = ir.from_proto(proto)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except (DecodeError, ValueError, IndexError) as error:
        raise ModelError(f"{path}: not an ONNX file: {error}") from error
    if not model.graph.outputs:
        raise ModelError(f"{path}: not an ONNX file: the graph has no outputs")
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def _without_weights(data: mmap.mmap, name: str) -> bytes:
    """Return the file's bytes with references to the file itself in place of large raw data."""
    kept = []
    for outer in _fields(data, 0, len(data)):
        if outer.number != _GRAPH:
            kept.append(data[outer.start : outer.end])
            continue
        graph = bytearray()
        for field in _fields(data, outer.content, outer.end):
            if field.number == _INITIALIZER and field.end - field.content > LARGE:
                graph += _wrapped(_INITIALIZER, _referring(data, field, name))
            else:
                graph += data[field.start : field.end]
        kept.append(_wrapped(_GRAPH, bytes(graph)))
    return b"".join(kept)


def _referring(data: mmap.mmap, initializer: _Field, name: str) -> bytes:
    import onnx

    fields = list(_fields(data, initializer.content, initializer.end))
    kept = b"".join(data[field.start : field.end] for field in fields if field.number != _RAW_DATA)
    tensor = onnx.TensorProto.FromString(kept)
    for field in fields:
        if field.number == _RAW_DATA:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": name, "offset": field.content, "length": field.end - field.content}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
    content: bytes = tensor.SerializeToString()
    return content


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of a message in the protobuf wire format."""
    while start < end:
        tag, place = _varint(data, start)
        kind = tag & 7
        if kind == 0:
            _, stop = _varint(data, place)
        elif kind == 2:
            length, place = _varint(data, place)
            stop = place + length
        elif kind in (1, 5):
            stop = place + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"unknown wire type {kind}")
        if stop > end or tag < 8:
            raise ValueError("truncated message")
        yield _Field(tag >> 3, start, place, stop)
        start = stop


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and the offset behind it."""
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7


def _wrapped(number: int, content: bytes) -> bytes:
    """Return a message as a field of another one."""
    head = bytearray()
    for value in (number << 3 | 2, len(content)):
        while value > 127:
            head.append(value & 127 | 128)
            value >>= 7
        head.append(value)
    return bytes(head) + content
