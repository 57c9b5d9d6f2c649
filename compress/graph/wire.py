"""Where the weights lie in the bytes of an ONNX file, whatever program wrote it.

A serialized message is a row of fields: a number and a wire type, then a varint, 4 or 8 bytes, or a
length and as many bytes, which may be a message again (https://protobuf.dev/programming-guides/encoding).
The scan goes from tensor to tensor without reading their values. The field numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from compress.errors import ModelError

Buffer: TypeAlias = "bytes | mmap.mmap"
Elsewhere: TypeAlias = tuple[str, int, int]
"""File, offset and length of a tensor's values."""
Moved: TypeAlias = "Mapping[int, Elsewhere | bytes]"
FEWEST_BYTES = 1024
"""Bytes of the smallest weight with a stream of its own; for a smaller one that would not pay."""
DEEPEST = 64
"""Nesting of messages; protobuf's own readers stop at 100."""

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DIMS, _TYPE, _FLOATS, _INTS, _NAME, _RAW, _DOUBLES, _EXTERNAL, _LOCATION = 1, 2, 4, 5, 8, 9, 10, 13, 14
_PAYLOADS = {_FLOATS: "float32", _INTS: "varint", 7: "varint", _RAW: "", _DOUBLES: "float64", 11: "varint"}
"""Fields with a tensor's values, and their type; raw bytes have the tensor's own type."""
KINDS = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "uint8",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""Key of `compress.codec.coders.NUMBERS` by TensorProto.DataType; types that are not listed are uint8."""


class Field(NamedTuple):
    """One field: its number, where it begins, and where its content does, with the content's end."""

    number: int
    wire_type: int
    start: int
    content: int
    end: int


@dataclass
class Tensor:
    """A TensorProto in a file."""

    start: int
    """Where its content begins."""
    end: int
    name: str = ""
    data_type: int = 0
    dims: list[int] = field(default_factory=list)
    payloads: list[tuple[str, int, int]] = field(default_factory=list)
    """Kind, start and end of each field with values."""
    raw: tuple[int, int] | None = None
    """Start and length of its values as raw bytes."""
    external: dict[str, str] = field(default_factory=dict)
    """Where its values are instead: location, offset, length."""
    is_initializer: bool = False
    """Whether it is an initializer of the main graph."""

    @property
    def kind(self) -> str:
        """Number type of its raw bytes, a key of `compress.codec.coders.NUMBERS`."""
        return KINDS.get(self.data_type, "uint8")


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Map an ONNX file into memory; a `ModelError` that is raised meanwhile gets the file's path.

    Raises:
        ModelError: the file cannot be read, or is empty.
    """
    try:
        if not path.stat().st_size:
            raise ModelError("is not an ONNX file: it is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def tensors(buffer: Buffer) -> list[Tensor]:
    """Return the tensors of a serialized ModelProto, those of nodes, subgraphs and functions included.

    Nodes of less than `FEWEST_BYTES` are passed over, unless they refer to external data.

    Raises:
        ModelError: these are not the bytes of an ONNX model.
    """
    found = list(_tensors(buffer, "model", 0, len(buffer), 0))
    if not any(each.number == 7 for each in fields(buffer, 0, len(buffer))):
        raise ModelError("is not an ONNX file: it has no graph")
    return found


def _tensors(buffer: Buffer, message: str, start: int, end: int, depth: int) -> Iterator[Tensor]:
    if depth > DEEPEST:
        raise ModelError("is not an ONNX file: its graphs are nested too deeply")
    for each in fields(buffer, start, end):
        child = _CHILDREN[message].get(each.number)
        if child is None or each.wire_type != 2:
            continue
        if child == "node" and each.end - each.content < FEWEST_BYTES and not _refers(buffer, each):
            continue
        if child == "tensor":
            tensor = _tensor(buffer, each.content, each.end)
            tensor.is_initializer = message == "graph" and depth == 1
            yield tensor
        else:
            yield from _tensors(buffer, child, each.content, each.end, depth + 1)


def _refers(buffer: Buffer, message: Field) -> bool:
    """Tell whether a message may hold a tensor whose values are in another file."""
    return buffer.find(b"location", message.content, message.end) >= 0


def _tensor(buffer: Buffer, start: int, end: int) -> Tensor:
    tensor = Tensor(start, end)
    for each in fields(buffer, start, end):
        if each.number == _TYPE and each.wire_type == 0:
            tensor.data_type = _varint(buffer, each.content, each.end)[0]
        elif each.number == _DIMS and each.wire_type in (0, 2):
            tensor.dims.extend(_varints(buffer, each))
        elif each.wire_type != 2:
            continue
        elif each.number == _NAME:
            tensor.name = _text(buffer, each)
        elif each.number in _PAYLOADS:
            kind = _PAYLOADS[each.number] or tensor.kind
            tensor.payloads.append((kind, each.content, each.end))
            if each.number == _RAW:
                tensor.raw = each.content, each.end - each.content
        elif each.number == _EXTERNAL:
            entry = {one.number: _text(buffer, one) for one in fields(buffer, each.content, each.end)}
            tensor.external[entry.get(1, "")] = entry.get(2, "")
    return tensor


def hollow(buffer: Buffer, moved: Moved) -> bytes:
    """Return the model with values of some tensors elsewhere.

    Args:
        buffer: a serialized ModelProto.
        moved: the values, or where they are, by `Tensor.start`.
    """
    return _rewritten(buffer, "model", 0, len(buffer), moved, sorted(moved))


def _rewritten(
    buffer: Buffer, message: str, start: int, end: int, moved: Moved, starts: Sequence[int]
) -> bytes:
    """Return a message in which the tensors at the sorted `starts` are replaced."""
    parts = []
    for each in fields(buffer, start, end):
        first = bisect_left(starts, each.content)
        child = _CHILDREN[message].get(each.number)
        if child is None or first == len(starts) or starts[first] >= each.end:
            parts.append(buffer[each.start : each.end])
        elif child == "tensor":
            parts.append(_delimited(each.number, _moved(buffer, each, moved[each.content])))
        else:
            inside = _rewritten(buffer, child, each.content, each.end, moved, starts)
            parts.append(_delimited(each.number, inside))
    return b"".join(parts)


def _moved(buffer: Buffer, tensor: Field, values: Elsewhere | bytes) -> bytes:
    parts = [
        buffer[each.start : each.end]
        for each in fields(buffer, tensor.content, tensor.end)
        if each.number not in (_RAW, _EXTERNAL, _LOCATION)
    ]
    if isinstance(values, bytes):
        return b"".join(parts) + _delimited(_RAW, values)
    for key, value in zip(("location", "offset", "length"), map(str, values), strict=True):
        parts.append(_delimited(_EXTERNAL, _delimited(1, key.encode()) + _delimited(2, value.encode())))
    return b"".join(parts) + bytes((_LOCATION << 3, 1))


def fields(buffer: Buffer, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of a message.

    Raises:
        ModelError: they do not end where the message does, or are of no known wire type.
    """
    at = start
    while at < end:
        tag, content = _varint(buffer, at, end)
        wire_type = tag & 7
        if wire_type == 0:
            stop = _varint(buffer, content, end)[1]
        elif wire_type == 2:
            length, content = _varint(buffer, content, end)
            stop = content + length
        elif wire_type in (1, 5):
            stop = content + (8 if wire_type == 1 else 4)
        else:
            raise ModelError("is not an ONNX file")
        if stop > end or tag < 8:
            raise ModelError("is not an ONNX file, or cut short")
        yield Field(tag >> 3, wire_type, at, content, stop)
        at = stop


def _varint(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = buffer[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ModelError("is not an ONNX file, or cut short")


def _varints(buffer: Buffer, numbers: Field) -> Iterator[int]:
    """Yield the numbers of a field, packed or alone."""
    at = numbers.content
    while at < numbers.end:
        value, at = _varint(buffer, at, numbers.end)
        yield value


def _text(buffer: Buffer, at: Field) -> str:
    return buffer[at.content : at.end].decode("utf-8", "replace")


def _delimited(number: int, content: bytes) -> bytes:
    """Return a field with a length and as many bytes."""
    head = bytearray()
    for value in (number << 3 | 2, len(content)):
        while value > 127:
            head.append(value & 127 | 128)
            value >>= 7
        head.append(value)
    return bytes(head) + content
