"""Lossless coding of a chunk of a tensor: by pcodec, by zstandard, or not at all, whichever is smallest.

pcodec (https://github.com/pcodec/pcodec) sorts numbers into bins, codes the bins with tabled asymmetric
numeral systems, and writes what is left of a number as plain bits. Floats lose their exponents' redundancy
that way and keep the mantissas' noise as it is; integer codes come within a thousandth of their order-0
entropy, pruned ones below a bit a weight included, where Huffman codes lose 0.3 to 30 %. zstandard finds
what repeats.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pcodec import ChunkConfig

CHUNK_BYTES = 8 << 20
"""Bytes that are coded, and can be decoded, on their own. Part of the file format."""
WIDE_LEVEL, NARROW_LEVEL = 10, 12
"""pcodec's levels: up to 2^level bins. Above 10, numbers of 16 bits and more are coded 4 times slower. Each
value of 8 bits gets a bin of its own at 12, which decodes half again as fast as bins of several."""
NARROW_PAGE = 1 << 21
"""Numbers of 8 bits that share bins: fewer, and the table of the bins costs more than 0.05 %."""
ZSTD_LEVEL = 3
GRAPH_LEVEL = 19
"""The level of zstandard for the graph, and for few weights that repeat."""
LITTLE = 1 << 20
"""Bytes that repeat, and are so few that looking at them at the higher level takes no time."""
TILE = 1 << 16
"""Elements that stay in the processor's cache while they are turned."""


class Coder(IntEnum):
    """How a chunk is written."""

    RAW = 0
    ZSTD = 1
    PCODEC = 2


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
"""What pcodec takes the bytes of a kind of weights for; packed nibbles are uint8. Other kinds are bytes."""


class CodingError(Exception):
    """A coded chunk is damaged."""


def encode(data: np.ndarray, kind: str) -> tuple[Coder, bytes]:
    """Return the shortest coding of a chunk.

    Args:
        data: uint8 [bytes], at most `CHUNK_BYTES`.
        kind: a key of `NUMBERS`, or anything else for bytes that are no numbers.
    """
    level = ZSTD_LEVEL if kind in NUMBERS else GRAPH_LEVEL
    plain = data.tobytes()
    found = [(Coder.RAW, plain), (Coder.ZSTD, _zstd(plain, level))]
    if kind in NUMBERS and data.size % NUMBERS[kind].itemsize == 0:
        found.append((Coder.PCODEC, _pcodec(data.view(NUMBERS[kind]), kind)))
    best = min(found, key=lambda one: len(one[1]))
    if best[0] is Coder.ZSTD and data.size <= LITTLE:
        return Coder.ZSTD, min(best[1], _zstd(plain, GRAPH_LEVEL), key=len)
    return best


def decode(coder: int, coded: bytes, kind: str, out: np.ndarray) -> None:
    """Fill `out`, uint8 [bytes], with a chunk.

    Raises:
        CodingError: the coded bytes do not stand for as many bytes, or for nothing at all.
    """
    if coder == Coder.PCODEC and kind in NUMBERS and out.size % NUMBERS[kind].itemsize == 0:
        _decode_numbers(coded, kind, out.view(NUMBERS[kind]))
    elif coder == Coder.ZSTD:
        out[:] = np.frombuffer(unzstd(coded, out.size), np.uint8)
    elif coder == Coder.RAW and len(coded) == out.size:
        out[:] = np.frombuffer(coded, np.uint8)
    else:
        raise CodingError("it is coded in a way that does not fit its type")


def unzstd(coded: bytes, size: int) -> bytes:
    """Return what a zstandard frame holds, which must be `size` bytes.

    Raises:
        CodingError: it is damaged, or says that it holds another number of bytes.
    """
    import zstandard

    try:
        # Asked first: a frame is believed, and memory taken, for any size that it states.
        if zstandard.frame_content_size(coded) != size:
            raise CodingError("it does not hold as much as it should")
        plain: bytes = zstandard.ZstdDecompressor().decompress(coded)
    except zstandard.ZstdError as error:
        raise CodingError(str(error)) from error
    return plain


def _zstd(plain: bytes, level: int) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=level).compress(plain)


def _pcodec(numbers: np.ndarray, kind: str) -> bytes:
    from pcodec import standalone

    coded: bytes = standalone.simple_compress(
        _rotated(numbers, 1) if kind == "bfloat16" else numbers, _config(kind)
    )
    return coded


def _config(kind: str) -> ChunkConfig:
    from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec

    number = NUMBERS[kind]
    if number.itemsize == 1:
        return ChunkConfig(
            compression_level=NARROW_LEVEL,
            mode_spec=ModeSpec.classic(),
            delta_spec=DeltaSpec.no_op(),
            paging_spec=PagingSpec.equal_pages_up_to(NARROW_PAGE),
            enable_8_bit=True,
        )
    # Weights follow each other like noise; tables of indices count.
    counts = number.kind in "iu" and number.itemsize > 2
    return ChunkConfig(
        compression_level=WIDE_LEVEL,
        mode_spec=ModeSpec.classic() if kind == "bfloat16" else ModeSpec.auto(),
        delta_spec=DeltaSpec.auto() if counts else DeltaSpec.no_op(),
    )


def _decode_numbers(coded: bytes, kind: str, out: np.ndarray) -> None:
    from pcodec import standalone

    try:
        progress = standalone.simple_decompress_into(coded, out)
    except (RuntimeError, TypeError) as error:
        raise CodingError(str(error)) from error
    if progress.n_processed != out.size or not progress.finished:
        raise CodingError("it does not hold as much as it should")
    if kind == "bfloat16":
        for start in range(0, out.size, TILE):
            out[start : start + TILE] = _rotated(out[start : start + TILE], 15)


def _rotated(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Rotate 16-bit numbers to the left; by one, bfloat16's sign goes behind its mantissa.

    The exponent comes to stand on top, and bins are of one exponent each.
    """
    return np.asarray((numbers << np.uint16(bits)) | (numbers >> np.uint16(16 - bits)))
