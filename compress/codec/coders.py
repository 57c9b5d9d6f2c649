"""Lossless coding of a chunk of a tensor: by pcodec, by zstandard, or not at all, whichever is smallest.

pcodec (https://github.com/pcodec/pcodec) sorts numbers into bins, codes the bins with tabled asymmetric
numeral systems, and writes the rest of each number as plain bits. Floats lose the redundancy of their
exponents that way; their mantissas are noise and stay as they are. Integer codes come within 0.1 % of their
order-0 entropy, even below one bit a weight after pruning, where Huffman codes lose 0.3 to 30 %. They go
below it where similar channels are coded apart from others (`compress.codec.clusters`). zstandard finds
repetitions.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np
import zstandard
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, standalone

from compress.codec.clusters import Clusters, Shape, clustered

CHUNK_BYTES = 8 << 20
"""Bytes that are coded, and can be decoded, on their own. Part of the file format."""
WIDE_LEVEL, NARROW_LEVEL = 10, 12
"""pcodec's levels: up to 2^level bins. Above 10, numbers of 16 bits and more are coded 4 times slower. Each
value of 8 bits gets a bin of its own at 12, which decodes half again as fast as bins of several."""
NARROW_PAGE = 1 << 21
"""8-bit numbers that share a table of bins. With fewer, the table would cost more than 0.05 %."""
ZSTD_LEVEL = 3
GRAPH_LEVEL = 19
"""The level of zstandard for the graph, and for small chunks of weights with repetitions."""
LITTLE = 1 << 20
"""Bytes of the largest chunk that `GRAPH_LEVEL` codes in no time."""
TILE = 1 << 16
"""Elements that stay in the processor's cache while they are rotated."""


class Coder(IntEnum):
    """How a chunk is written."""

    RAW = 0
    ZSTD = 1
    PCODEC = 2
    CLUSTERS = 3
    """8-bit values in clusters of rows or columns, each coded by pcodec on its own. See `_clusters`."""


NUMBERS: dict[str, np.dtype] = {
    "bfloat16": np.dtype("<u2"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
}
"""The type that pcodec reads a kind of weights as; packed 4-bit weights are uint8. Other kinds are bytes."""

_HEAD = struct.Struct("<?BII")
"""Header of a chunk in clusters: `Clusters.columns`, number of clusters, `Clusters.width` and `.head`."""


class CodingError(Exception):
    """A coded chunk is damaged."""


def encode(data: np.ndarray, kind: str, shape: Shape | None = None) -> tuple[Coder, bytes]:
    """Return the shortest coding of a chunk.

    Args:
        data: uint8 [bytes], at most `CHUNK_BYTES`.
        kind: a key of `NUMBERS`; anything else stands for plain bytes.
        shape: layout of the tensor; without it, no clusters are tried.
    """
    level = ZSTD_LEVEL if kind in NUMBERS else GRAPH_LEVEL
    plain = data.tobytes()
    found = [(Coder.RAW, plain), (Coder.ZSTD, _zstd(plain, level))]
    if kind in NUMBERS and data.size % NUMBERS[kind].itemsize == 0:
        clusters = clustered(data, shape) if shape is not None and NUMBERS[kind].itemsize == 1 else None
        if clusters is not None:
            found.append((Coder.CLUSTERS, _clusters(data, kind, clusters)))
        else:
            found.append((Coder.PCODEC, _pcodec(data.view(NUMBERS[kind]), kind)))
    best = min(found, key=lambda one: len(one[1]))
    if best[0] is Coder.ZSTD and data.size <= LITTLE:
        return Coder.ZSTD, min(best[1], _zstd(plain, GRAPH_LEVEL), key=len)
    return best


def decode(coder: int, coded: bytes, kind: str, out: np.ndarray) -> None:
    """Fill `out`, uint8 [bytes], with a chunk.

    Raises:
        CodingError: the coded bytes are damaged, or hold another number of bytes.
    """
    if coder == Coder.PCODEC and kind in NUMBERS and out.size % NUMBERS[kind].itemsize == 0:
        _decode_numbers(coded, kind, out.view(NUMBERS[kind]))
    elif coder == Coder.CLUSTERS and kind in NUMBERS and NUMBERS[kind].itemsize == 1:
        _decode_clusters(coded, kind, out)
    elif coder == Coder.ZSTD:
        out[:] = np.frombuffer(unzstd(coded, out.size), np.uint8)
    elif coder == Coder.RAW and len(coded) == out.size:
        out[:] = np.frombuffer(coded, np.uint8)
    else:
        raise CodingError("its coder does not fit its type")


def unzstd(coded: bytes, size: int) -> bytes:
    """Return the content of a zstandard frame, which must be `size` bytes.

    Raises:
        CodingError: the frame is damaged, or states another size.
    """
    try:
        # Checked first: the decompressor allocates whatever size a frame states.
        if zstandard.frame_content_size(coded) != size:
            raise CodingError("it holds another number of bytes than it should")
        plain: bytes = zstandard.ZstdDecompressor().decompress(coded)
    except zstandard.ZstdError as error:
        raise CodingError(str(error)) from error
    return plain


def _zstd(plain: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(plain)


def _pcodec(numbers: np.ndarray, kind: str) -> bytes:
    coded: bytes = standalone.simple_compress(
        _rotated(numbers, 1) if kind == "bfloat16" else numbers, _config(kind)
    )
    return coded


def _clusters(data: np.ndarray, kind: str, clusters: Clusters) -> bytes:
    """Code a chunk: `_HEAD`, lengths of what follows (uint32), labels by zstandard, clusters by pcodec."""
    numbers = [part.view(NUMBERS[kind]) for part in clusters.split(data)]
    head = _HEAD.pack(clusters.columns, len(numbers), clusters.width, clusters.head)
    parts = [_zstd(clusters.labels.tobytes(), GRAPH_LEVEL), *(_pcodec(each, kind) for each in numbers)]
    return b"".join([head, np.array([len(part) for part in parts], "<u4").tobytes(), *parts])


def _decode_clusters(coded: bytes, kind: str, out: np.ndarray) -> None:
    try:
        columns, number, width, head = _HEAD.unpack_from(coded)
        lengths = np.frombuffer(coded, "<u4", number + 1, _HEAD.size)
    except (struct.error, ValueError) as error:
        raise CodingError(str(error)) from error
    if not 1 <= width <= out.size - head:
        raise CodingError("its rows are wider than it is")
    stops = _HEAD.size + lengths.nbytes + np.cumsum(lengths, dtype=np.int64)
    parts = [coded[stop - length : stop] for stop, length in zip(stops, lengths, strict=True)]
    size = width if columns else (out.size - head) // width
    labels = np.frombuffer(unzstd(parts[0], size), np.uint8)
    if stops[-1] != len(coded) or int(labels.max()) + 1 != number:
        raise CodingError("its clusters do not fit their labels")
    clusters = Clusters(columns, width, head, labels)
    joined = np.empty_like(out)
    start = 0
    for part, end in zip(parts[1:], clusters.ends(out.size), strict=True):
        _decode_numbers(part, kind, joined[start:end].view(NUMBERS[kind]))
        start = end
    clusters.join(joined, out)


def _config(kind: str) -> ChunkConfig:
    number = NUMBERS[kind]
    if number.itemsize == 1:
        return ChunkConfig(
            compression_level=NARROW_LEVEL,
            mode_spec=ModeSpec.classic(),
            delta_spec=DeltaSpec.no_op(),
            paging_spec=PagingSpec.equal_pages_up_to(NARROW_PAGE),
            enable_8_bit=True,
        )
    # Neighbouring weights are unrelated; tables of indices often count upwards.
    counts = number.kind in "iu" and number.itemsize > 2
    return ChunkConfig(
        compression_level=WIDE_LEVEL,
        mode_spec=ModeSpec.classic() if kind == "bfloat16" else ModeSpec.auto(),
        delta_spec=DeltaSpec.auto() if counts else DeltaSpec.no_op(),
    )


def _decode_numbers(coded: bytes, kind: str, out: np.ndarray) -> None:
    try:
        progress = standalone.simple_decompress_into(coded, out)
    except (RuntimeError, TypeError) as error:
        raise CodingError(str(error)) from error
    if progress.n_processed != out.size or not progress.finished:
        raise CodingError("it holds another number of bytes than it should")
    if kind == "bfloat16":
        for start in range(0, out.size, TILE):
            out[start : start + TILE] = _rotated(out[start : start + TILE], 15)


def _rotated(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Rotate 16-bit numbers to the left; by one bit, the sign of a bfloat16 goes behind its mantissa.

    The exponent is then in the highest bits, so that each bin holds one exponent.
    """
    return np.asarray((numbers << np.uint16(bits)) | (numbers >> np.uint16(16 - bits)))
