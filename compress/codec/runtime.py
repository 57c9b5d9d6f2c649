"""A session of ONNX Runtime on a packed model, without unpacking it to a file."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from compress.codec.container import GRAPH, File, Reader, ahead
from compress.codec.packing import REST, extent
from compress.errors import ModelError
from compress.graph.session import session_options, start
from compress.graph.wire import Elsewhere, Tensor, hollow, tensors


def open(
    path: str | os.PathLike[str],
    *,
    threads: int = 0,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> ort.InferenceSession:
    """Return an ONNX Runtime session on a packed file.

    The weights are decoded by several threads, in memory: nothing is written to disk.

    Args:
        path: what ``compress pack`` wrote.
        threads: threads of one operator; 0 leaves the choice to the runtime.
        providers: execution providers, most wanted first.

    Raises:
        ModelError: the file is not a packed model, it is damaged, or the runtime refuses the model.
    """
    with Reader(path) as reader, reader.named():
        _check_memory(reader)
        loaded = _Loaded(reader)
        reader.fill_all(loaded.waiting)
    options = session_options(threads)
    if loaded.buffers:
        names, buffers = list(loaded.buffers), list(loaded.buffers.values())
        sizes = [buffer.nbytes for buffer in buffers]
        options.add_external_initializers_from_files_in_memory(names, buffers, sizes)
    return start(loaded.proto, options, providers)


def _check_memory(reader: Reader) -> None:
    if not hasattr(os, "sysconf"):
        return
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if reader.index.bytes > installed:
        needed = f"{reader.index.bytes:,} bytes"
        raise ModelError(f"it unpacks to {needed}, and this machine has {installed:,} of memory")


@dataclass(frozen=True, slots=True)
class _Part:
    """A run of a file's bytes: a whole weight, or data of the graph."""

    start: int
    end: int
    number: int
    data: bytes = b""


class _Loaded:
    """A model whose large initializers are in arrays beside it.

    Attributes:
        proto: the serialized model; values of some initializers are in "files" named as `buffers` are.
        buffers: uint8 arrays.
        waiting: streams by number, and the buffers that they must still be decoded into.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.buffers: dict[str, np.ndarray] = {}
        self.waiting: list[tuple[int, np.ndarray]] = []
        graph = io.BytesIO(reader.read(GRAPH))
        self.files = {file.location: list(self._parts(file, graph)) for file in reader.index.files}
        self.weights = {
            (location, part.start, part.end): part.number
            for location, parts in self.files.items()
            for part in parts
            if part.number != GRAPH
        }
        model = self.files[""]
        if not model:
            raise ModelError("the model in it is empty")
        # Pages of the mapping that are never written take no memory.
        with mmap.mmap(-1, model[-1].end) as space:
            for part in model:
                if part.number == GRAPH:
                    space[part.start : part.end] = part.data
            found = tensors(space)
            moved = {one.start: values for one in found if (values := self._values(one)) is not None}
            outside = {one.raw[0] for one in found if one.raw is not None and one.start in moved}
            inside = [part for part in model if part.number != GRAPH and part.start not in outside]
            for part, data in zip(inside, ahead(lambda part: reader.read(part.number), inside), strict=True):
                space[part.start : part.end] = data
            self.proto = hollow(space, moved)

    def _parts(self, file: File, graph: io.BytesIO) -> Iterator[_Part]:
        at = 0
        for number, size in file.pieces:
            if number == GRAPH:
                yield _Part(at, at + size, GRAPH, graph.read(size))
            elif self.reader.index.streams[number].kind == REST:
                yield _Part(at, at + size, GRAPH, self.reader.read(number).tobytes())
            else:
                yield _Part(at, at + size, number)
            at += size

    def _values(self, tensor: Tensor) -> Elsewhere | bytes | None:
        """Return where a tensor's values are now, or the values themselves; None if they stay in place."""
        if tensor.external:
            return self._external(tensor)
        if tensor.raw is None or not tensor.is_initializer or len(tensor.payloads) > 1:
            return None
        return self._buffer("", *tensor.raw)

    def _external(self, tensor: Tensor) -> Elsewhere | bytes:
        """Return the buffer of external data; their bytes if they are not a whole stream or in a subgraph."""
        location = tensor.external.get("location", "")
        if not location or location not in self.files:
            raise ModelError(f"{tensor.name!r}: its external data {location!r} are not in the file")
        parts = self.files[location]
        size = parts[-1].end if parts else 0
        start, length = extent(tensor, size)
        if start + length > size:
            raise ModelError(f"{tensor.name!r}: its external data end before they should")
        buffer = self._buffer(location, start, length) if tensor.is_initializer else None
        return buffer or self._bytes(parts, start, start + length)

    def _buffer(self, location: str, start: int, size: int) -> Elsewhere | None:
        number = self.weights.get((location, start, start + size))
        if number is None:
            return None
        name = str(number)
        if name not in self.buffers:
            self.buffers[name] = np.empty(size, np.uint8)
            self.waiting.append((number, self.buffers[name]))
        return name, 0, size

    def _bytes(self, parts: Iterable[_Part], start: int, end: int) -> bytes:
        runs = []
        for part in parts:
            if part.end > start and part.start < end:
                data = part.data if part.number == GRAPH else self.reader.read(part.number).tobytes()
                runs.append(data[max(start - part.start, 0) : end - part.start])
        return b"".join(runs)
