"""The packed file: a safetensors container of two arrays of bytes, the coded chunks and their index.

The one entry of the container's metadata is a JSON document: format, size and checksum of the index, the
program that wrote the file, and the name of the model. The index (JSON, zstandard) lists *streams* and
*files*. A stream is a weight or the rest of the graph, cut into chunks of `CHUNK_BYTES` that follow each
other in the file. A file is a sequence of pieces of streams. Everything is checked as it is read: sizes
against the file, chunks against their checksums.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from itertools import accumulate, chain, islice
from os import PathLike, cpu_count
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import numpy as np
import zstandard
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError, model_validator

from compress.codec.coders import CHUNK_BYTES, CodingError, decode, unzstd
from compress.errors import ModelError

FORMAT = 1
GRAPH = 0
"""Index of the stream that holds everything but the weights."""
LARGEST_MODEL = 1 << 31
"""Most bytes of a protobuf message."""
LARGEST_INDEX = 1 << 26
LARGEST_HEADER = 1 << 16
WORKERS = min(4, cpu_count() or 1)
"""Chunks coded at the same time: each may take ten times its size."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Stream(_Frozen):
    """Bytes that are coded together."""

    name: str
    """Name of the initializer; empty for the graph."""
    kind: str
    bytes: NonNegativeInt
    chunks: tuple[tuple[int, NonNegativeInt, int], ...]
    """Coder, coded bytes and CRC-32 of each chunk."""

    @model_validator(mode="after")
    def _check(self) -> Stream:
        if len(self.chunks) != -(-self.bytes // CHUNK_BYTES):
            raise ValueError("the chunks do not add up to the stream")
        return self

    @property
    def coded_bytes(self) -> int:
        """Bytes in the packed file."""
        return sum(size for _, size, _ in self.chunks)


class File(_Frozen):
    """A file that was packed."""

    location: str
    """Path beside the model; empty for the model itself."""
    sha256: str
    pieces: tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
    """Stream and bytes of each piece: the whole stream of a weight, or the next bytes of the graph's."""

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return sum(size for _, size in self.pieces)


class Index(_Frozen):
    """What a packed file holds."""

    streams: tuple[Stream, ...]
    files: tuple[File, ...]
    """The model first."""

    @model_validator(mode="after")
    def _check(self) -> Index:
        if not self.files or not self.streams or self.files[0].location:
            raise ValueError("there is no model in it")
        if max(self.files[0].bytes, self.streams[GRAPH].bytes) > LARGEST_MODEL:
            raise ValueError("the model is larger than an ONNX file can be")
        if len({file.location for file in self.files}) != len(self.files):
            raise ValueError("two files have the same name")
        for file in self.files[1:]:
            if not is_beside(file.location):
                raise ValueError(f"the path {file.location!r} leads out of the model's folder")
        rest = 0
        for number, size in chain.from_iterable(file.pieces for file in self.files):
            if number >= len(self.streams) or (number != GRAPH and size != self.streams[number].bytes):
                raise ValueError("the pieces of a file do not fit the streams")
            rest += size if number == GRAPH else 0
        if rest != self.streams[GRAPH].bytes:
            raise ValueError("the pieces of the files do not fit the graph")
        return self

    @property
    def bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.bytes for file in self.files)


class _Header(_Frozen):
    """The JSON document in the container's metadata."""

    format: int
    index_bytes: NonNegativeInt
    index_crc32: int
    model: str
    written_by: str
    coders: dict[str, str]


def is_beside(location: str) -> bool:
    """Tell whether a path stays in the folder that it is relative to."""
    path = PurePosixPath(location)
    odd = "\\" in location or ":" in location or "\0" in location
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not odd


def is_packed(path: str | PathLike[str]) -> bool:
    """Tell whether a file begins like a packed one: a safetensors header with our entry in its metadata."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return head[8:].startswith(b'{"__metadata__":{"compress":')


def coded_bytes(path: str | PathLike[str]) -> dict[str, float]:
    """Return the coded size of every weight of a packed file, by the name of its initializer.

    Raises:
        ModelError: this is not a packed file, or it is damaged.
    """
    with Reader(path) as reader:
        return {stream.name: float(stream.coded_bytes) for stream in reader.index.streams if stream.name}


class Reader:
    """A packed file, open for reading by one thread or several.

    Errors in a chunk do not name the file; `named` adds its path to them.

    Raises:
        ModelError: this is not a packed file, or it is damaged.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file: BinaryIO = self.path.open("rb")
            self.size = self.path.stat().st_size
        except OSError as error:
            raise ModelError(f"{self.path}: {error.strerror or error}") from error
        self._lock = threading.Lock()
        try:
            self.header, self._start, index = self._read_header()
            self.index = self._read_index(*index)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Put the path before the message of a `ModelError`."""
        try:
            yield
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error

    def fill(self, number: int, chunk: int, out: np.ndarray) -> None:
        """Decode one chunk of a stream into `out`, uint8 [bytes].

        Raises:
            ModelError: the chunk is damaged.
        """
        stream = self.index.streams[number]
        coder, size, crc = stream.chunks[chunk]
        coded = self._read(self._start + self._offsets[number][chunk], size)
        try:
            if zlib.crc32(coded) != crc:
                raise CodingError("its checksum is wrong")
            decode(coder, coded, stream.kind, out)
        except CodingError as error:
            raise ModelError(f"damaged: {stream.name or 'the graph'}: {error}") from error

    def chunk(self, number: int, chunk: int) -> memoryview:
        """Return one chunk of a stream."""
        left = self.index.streams[number].bytes - chunk * CHUNK_BYTES
        out = np.empty(min(left, CHUNK_BYTES), np.uint8)
        self.fill(number, chunk, out)
        return out.data

    def fill_all(self, streams: Iterable[tuple[int, np.ndarray]]) -> None:
        """Decode whole streams, each into an array of its size, by several threads."""
        tasks = (
            (number, chunk, out[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
            for number, out in streams
            for chunk in range(len(self.index.streams[number].chunks))
        )
        for _ in ahead(lambda task: self.fill(*task), tasks):
            pass

    def read(self, number: int) -> memoryview:
        """Return a whole stream."""
        out = np.empty(self.index.streams[number].bytes, np.uint8)
        self.fill_all([(number, out)])
        return out.data

    @cached_property
    def _offsets(self) -> list[list[int]]:
        """Where the chunks of each stream begin."""
        sizes = [[size for _, size, _ in stream.chunks] for stream in self.index.streams]
        starts = accumulate((sum(each) for each in sizes), initial=0)
        return [list(accumulate(each, initial=start)) for start, each in zip(starts, sizes, strict=False)]

    def _read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def _bad(self, why: str) -> ModelError:
        return ModelError(f"{self.path}: not a packed model, or damaged: {why}")

    def _read_header(self) -> tuple[_Header, int, tuple[int, int]]:
        """Return the header, where the data begin, and start and end of the index."""
        length = int.from_bytes(self._read(0, 8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, self.size - 8):
            raise self._bad("it has no header of a plausible length")
        try:
            header = json.loads(self._read(8, length))
            weights, index = (_extent(header[name]) for name in ("weights", "index"))
            found = _Header.model_validate_json(header["__metadata__"]["compress"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._bad("its header cannot be read") from error
        if found.format != FORMAT:
            raise ModelError(f"{self.path}: has format {found.format}; this version reads {FORMAT}")
        start = 8 + length
        if weights != (0, index[0]) or index[1] != self.size - start:
            raise self._bad("its size is not the one that its header states")
        return found, start, index

    def _read_index(self, start: int, end: int) -> Index:
        coded = self._read(self._start + start, end - start)
        header = self.header
        if zlib.crc32(coded) != header.index_crc32 or header.index_bytes > LARGEST_INDEX:
            raise self._bad("the checksum of its index is wrong")
        try:
            index = Index.model_validate_json(unzstd(coded, header.index_bytes))
        except ValidationError as error:
            raise self._bad(error.errors()[0]["msg"]) from error
        except CodingError as error:
            raise self._bad(str(error)) from error
        if sum(stream.coded_bytes for stream in index.streams) != start:
            raise self._bad("its streams do not add up to its size")
        return index


def _extent(entry: Any) -> tuple[int, int]:
    """Return where an array of bytes begins and ends."""
    start, end = entry["data_offsets"]
    if entry["dtype"] != "U8" or entry["shape"] != [end - start] or not 0 <= start <= end:
        raise ValueError("not an array of bytes")
    return int(start), int(end)


class Writer:
    """Writes a packed file from front to back, except for the header, which is written last."""

    def __init__(self, file: BinaryIO, model: str) -> None:
        self._file = file
        self._model = model
        self._room = len(self._header(10**18, 10**18, 1 << 32))
        self._room += -self._room % 8
        self._streams: list[Stream] = []
        file.seek(self._room + 8)

    def add(self, name: str, kind: str, size: int, chunks: Iterator[tuple[int, bytes]]) -> None:
        """Write a stream of `size` bytes; takes as many coded chunks from `chunks` as that makes."""
        written = []
        for coder, coded in islice(chunks, -(-size // CHUNK_BYTES)):
            self._file.write(coded)
            written.append((int(coder), len(coded), zlib.crc32(coded)))
        self._streams.append(Stream(name=name, kind=kind, bytes=size, chunks=tuple(written)))

    def finish(self, files: Iterable[File]) -> Index:
        """Write index and header."""
        index = Index(streams=tuple(self._streams), files=tuple(files))
        plain = index.model_dump_json().encode()
        coded = zstandard.ZstdCompressor(level=19).compress(plain)
        self._file.write(coded)
        header = self._header(self._file.tell() - self._room - 8, len(coded), len(plain), zlib.crc32(coded))
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + header.ljust(self._room))
        return index

    def _header(self, end: int, coded: int, plain: int, crc: int = 1 << 32) -> bytes:
        described = _Header(
            format=FORMAT,
            index_bytes=plain,
            index_crc32=crc,
            model=self._model,
            written_by=f"compress {version('compress-toolkit')}",
            coders={name: version(name) for name in ("pcodec", "zstandard")},
        )
        extents = {"weights": (0, end - coded), "index": (end - coded, end)}
        entries: dict[str, Any] = {"__metadata__": {"compress": described.model_dump_json()}}
        for name, (start, stop) in extents.items():
            entries[name] = {"dtype": "U8", "shape": [stop - start], "data_offsets": [start, stop]}
        return json.dumps(entries, separators=(",", ":")).encode()


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function` of every item in order, computed by threads that run only a little ahead."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
