"""An ONNX model and its external data into one packed file, and back, bit for bit."""

from __future__ import annotations

import filecmp
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from compress.codec.clusters import Shape
from compress.codec.coders import CHUNK_BYTES, encode
from compress.codec.container import GRAPH, File, Index, Reader, Writer, ahead, is_beside
from compress.errors import ModelError, StoreError, writing
from compress.graph.wire import FEWEST_BYTES, Tensor, mapped, tensors

LONGEST_REST = 1 << 20
"""Most bytes between two weights that join the graph's stream; a longer run gets a stream of its own."""
REST = "bytes"
"""Kind of such a stream."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a file's bytes."""

    start: int
    end: int
    name: str = ""
    kind: str = ""
    """Number type of the weights in it; `REST`, or empty if it joins the graph's stream."""
    shape: Shape | None = None


@dataclass
class Source:
    """A file to be packed."""

    path: Path
    location: str
    pieces: list[Piece]
    digests: list[bytes] = field(default_factory=list)
    """Hashes of the pieces: content that occurs twice is coded once."""
    sha256: str = ""


def pack(model: str | os.PathLike[str], path: str | os.PathLike[str]) -> Index:
    """Write an ONNX file, with its external data, as one packed file.

    Reads and writes in chunks: memory stays within some 400 MB whatever the model's size.

    Args:
        model: path of the ONNX file.
        path: where to write; appears whole or not at all.

    Raises:
        ModelError: `model` is not an ONNX file, or its external data are missing.
        StoreError: the packed file cannot be written.
    """
    model, path = Path(model), Path(path)
    try:
        sources = _sources(model)
        for source in sources:
            _digest(source)
    except OSError as error:
        raise ModelError(f"{error.filename or model}: {error.strerror or error}") from error
    if path.resolve() in {source.path.resolve() for source in sources}:
        raise StoreError(f"{path}: is a file of the model that is to be packed; choose another name")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".packing-") as folder:
            partial = Path(folder, path.name)
            with partial.open("wb") as file:
                index = _write(sources, Writer(file, model.name))
            partial.replace(path)
    return index


def _sources(model: Path) -> list[Source]:
    """Return the model and the files with its external data."""
    with mapped(model) as buffer:
        size, found = len(buffer), tensors(buffer)
    inside = [
        Piece(start, end, one.name, kind, Shape.of(one.dims, end - start))
        for one in found
        for kind, start, end in one.payloads
    ]
    sources = [Source(model, "", cut(size, inside))]
    outside: dict[str, list[Tensor]] = {}
    for one in found:
        if one.external:
            outside.setdefault(one.external.get("location", ""), []).append(one)
    for location, stored in outside.items():
        sources.append(_external(model, location, stored))
    return sources


def _external(model: Path, location: str, stored: Iterable[Tensor]) -> Source:
    path = model.parent / location
    if not is_beside(location):
        raise ModelError(f"{model}: external data {location!r} lie outside of its folder")
    if not path.is_file():
        raise ModelError(f"{path}: the model's external data are missing")
    size = path.stat().st_size
    pieces = []
    for one in stored:
        start, length = extent(one, size)
        if start + length > size:
            raise ModelError(f"{path}: ends before the data of {one.name!r}")
        pieces.append(Piece(start, start + length, one.name, one.kind, Shape.of(one.dims, length)))
    return Source(path, location, cut(size, pieces))


def extent(tensor: Tensor, size: int) -> tuple[int, int]:
    """Return where in a file of `size` bytes a tensor's external data are: offset and length."""
    try:
        offset = int(tensor.external.get("offset") or 0)
        length = int(tensor.external.get("length") or size - offset)
    except ValueError as error:
        raise ModelError(f"{tensor.name!r}: offset or length of its external data is not a number") from error
    if offset < 0 or length < 0:
        raise ModelError(f"{tensor.name!r}: offset or length of its external data is negative")
    return offset, length


def cut(size: int, weights: Iterable[Piece]) -> list[Piece]:
    """Return pieces that cover a file from 0 to `size`: the larger weights, and what lies between them."""
    pieces: list[Piece] = []
    at = 0
    for weight in sorted(weights, key=lambda piece: (piece.start, piece.end)):
        if weight.start < at or weight.end - weight.start < FEWEST_BYTES:
            continue
        pieces += _between(at, weight.start)
        pieces.append(weight)
        at = weight.end
    return [*pieces, *_between(at, size)]


def _between(start: int, end: int) -> Iterator[Piece]:
    if end > start:
        yield Piece(start, end, kind=REST if end - start > LONGEST_REST else "")


def _digest(source: Source) -> None:
    whole = hashlib.sha256()
    for piece in source.pieces:
        part = hashlib.sha256()
        for chunk in _chunks(source.path, piece):
            part.update(chunk)
            whole.update(chunk)
        source.digests.append(part.digest())
    source.sha256 = whole.hexdigest()


def _chunks(path: Path, piece: Piece) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(piece.start)
        for start in range(piece.start, piece.end, CHUNK_BYTES):
            size = min(CHUNK_BYTES, piece.end - start)
            chunk = file.read(size)
            if len(chunk) != size:
                raise ModelError(f"{path}: became shorter while it was read")
            yield chunk


def _write(sources: Sequence[Source], writer: Writer) -> Index:
    """Code each stream once, and list the files that they make up."""
    rest = b"".join(
        chunk
        for source in sources
        for piece in source.pieces
        if not piece.kind
        for chunk in _chunks(source.path, piece)
    )
    streams: dict[tuple[bytes, str], tuple[Path, Piece]] = {}
    for source in sources:
        for piece, digest in zip(source.pieces, source.digests, strict=True):
            if piece.kind:
                streams.setdefault((digest, piece.kind), (source.path, piece))
    coded = ahead(
        lambda task: encode(np.frombuffer(task[0], np.uint8), *task[1:]), _tasks(rest, streams.values())
    )
    writer.add("", "", len(rest), coded)
    for _, piece in streams.values():
        writer.add(piece.name, piece.kind, piece.end - piece.start, coded)
    numbers = {key: number for number, key in enumerate(streams, GRAPH + 1)}
    files = [
        File(
            location=source.location,
            sha256=source.sha256,
            pieces=tuple(
                (numbers[digest, piece.kind] if piece.kind else GRAPH, piece.end - piece.start)
                for piece, digest in zip(source.pieces, source.digests, strict=True)
            ),
        )
        for source in sources
    ]
    return writer.finish(files)


def _tasks(rest: bytes, streams: Iterable[tuple[Path, Piece]]) -> Iterator[tuple[bytes, str, Shape | None]]:
    """Yield every chunk of every stream with its kind and shape."""
    for start in range(0, len(rest), CHUNK_BYTES):
        yield rest[start : start + CHUNK_BYTES], "", None
    for path, piece in streams:
        for number, chunk in enumerate(_chunks(path, piece)):
            shape = piece.shape and piece.shape._replace(start=number * CHUNK_BYTES)
            yield chunk, piece.kind, shape


def unpack(packed: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Restore the ONNX file that was packed, and its external data beside it under their own names.

    Args:
        packed: path of the packed file.
        path: where to write the ONNX file; the files appear whole or not at all.

    Raises:
        ModelError: `packed` is not a packed file, or it is damaged; nothing is written then.
        StoreError: the files cannot be written, or would replace other external data.
    """
    path = Path(path)
    with Reader(packed) as reader, reader.named(), writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(reader, path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unpacking-") as folder:
            targets = _restored(reader, Path(folder), path)
            for partial, target in targets.items():
                _check_free(partial, target, path)
            for partial, target in reversed(list(targets.items())):  # the model comes last
                target.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(target)
    return path


@contextmanager
def unpacked(packed: str | os.PathLike[str]) -> Iterator[Path]:
    """Unpack into a temporary folder; yields the path of the ONNX file.

    Raises:
        ModelError, StoreError: as `unpack`.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield unpack(packed, Path(folder, "model.onnx"))


def _check_room(reader: Reader, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if reader.index.bytes > free:
        raise StoreError(f"{folder}: has {free:,} bytes free, and {reader.index.bytes:,} are needed")


def _check_free(partial: Path, target: Path, model: Path) -> None:
    """Keep external data of another model from being lost."""
    if not target.resolve().is_relative_to(model.parent.resolve()):
        raise StoreError(f"{target}: leads out of the model's folder")
    if target != model and target.exists() and not filecmp.cmp(partial, target, shallow=False):
        raise StoreError(f"{target}: exists already and holds other data; unpack into an empty folder")


def _restored(reader: Reader, folder: Path, model: Path) -> Mapping[Path, Path]:
    """Write the files under other names; return each with the path where it belongs."""
    rest = io.BytesIO(reader.read(GRAPH))
    targets = {}
    for number, file in enumerate(reader.index.files):
        partial = folder / str(number)
        digest = hashlib.sha256()
        with partial.open("wb") as out:
            for data in _contents(reader, file, rest):
                out.write(data)
                digest.update(data)
        if digest.hexdigest() != file.sha256:
            raise ModelError(f"damaged: {file.location or 'the model'} does not match its checksum")
        targets[partial] = model.parent / file.location if file.location else model
    if len(set(targets.values())) < len(targets):
        raise StoreError(f"{model}: a file of the model's external data has this name; choose another")
    return targets


def _contents(reader: Reader, file: File, rest: BinaryIO) -> Iterator[bytes | memoryview]:
    chunks = [len(stream.chunks) for stream in reader.index.streams]
    weights = (number for number, _ in file.pieces if number != GRAPH)
    decoded = ahead(
        lambda task: reader.chunk(*task),
        ((number, chunk) for number in weights for chunk in range(chunks[number])),
    )
    for number, size in file.pieces:
        if number == GRAPH:
            yield rest.read(size)
        else:
            yield from islice(decoded, chunks[number])
