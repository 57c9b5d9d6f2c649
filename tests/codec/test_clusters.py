import itertools
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.codec.clusters import Clusters, Shape, clustered
from compress.codec.coders import Coder, CodingError, decode, encode

HEAD = struct.calcsize("<?BII")


def entropy_bytes(codes: np.ndarray) -> float:
    """Bytes that a code of order 0 needs."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / codes.size)).sum() / 8)


def per_channel(rows: int, columns: int, axis: int) -> np.ndarray:
    """Codes of channels that differ in their tails, each scaled by its largest weight; int8."""
    rng = np.random.default_rng(0)
    weights = rng.standard_t(np.geomspace(1, 30, rows), (columns, rows)).T
    codes = np.rint(weights / np.abs(weights).max(1, keepdims=True) * 127).astype(np.int8)
    return np.ascontiguousarray(np.moveaxis(codes, 0, axis))


def decoded(coder: int, coded: bytes, kind: str, size: int) -> np.ndarray:
    """Decode a chunk."""
    out = np.empty(size, np.uint8)
    decode(coder, coded, kind, out)
    return out


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_any_chunk_is_put_together_as_it_was_split(draw: st.DataObject) -> None:
    data = np.random.default_rng(0).integers(0, 256, draw.draw(st.integers(1, 700)), np.uint8)
    head = draw.draw(st.integers(0, data.size - 1))
    width = draw.draw(st.integers(1, data.size - head))
    columns = draw.draw(st.booleans())
    number = width if columns else (data.size - head) // width
    labels = draw.draw(st.lists(st.integers(0, 7), min_size=number, max_size=number))
    clusters = Clusters(columns, width, head, np.array(labels, np.uint8))
    parts = clusters.split(data)
    assert clusters.ends(data.size) == list(np.cumsum([part.size for part in parts]))
    out = np.zeros_like(data)
    clusters.join(np.concatenate(parts), out)
    assert out.tobytes() == data.tobytes()


@given(
    st.sampled_from([0, 1]), st.integers(0, 10**6), st.integers(0, 3000), st.sampled_from(["int8", "uint8"])
)
@settings(deadline=None, max_examples=10)
def test_chunks_that_begin_and_end_anywhere_come_back(axis: int, start: int, short: int, kind: str) -> None:
    codes = per_channel(512, 1024, axis)
    data = codes.view(np.uint8).ravel()[start % 5000 : codes.size - short]
    shape = Shape(codes.shape[1], codes.shape[1], start % 5000)
    coder, coded = encode(data, kind, shape)
    assert coder is Coder.CLUSTERS
    assert decoded(coder, coded, kind, data.size).tobytes() == data.tobytes()


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_come_below_the_entropy_of_all_codes(axis: int) -> None:
    codes = per_channel(1024, 1024, axis)
    coder, coded = encode(codes.view(np.uint8).ravel(), "int8", Shape.of(codes.shape, codes.nbytes))
    channels = np.moveaxis(codes, axis, 0)
    assert coder is Coder.CLUSTERS
    assert sum(map(entropy_bytes, channels)) < len(coded) < 0.98 * entropy_bytes(codes)


def test_packed_nibbles_come_below_the_entropy_of_all_codes_too() -> None:
    nibbles = np.clip(np.rint(per_channel(1024, 2048, 0) / 16), -8, 7).astype(int) + 8
    packed = (nibbles[:, ::2] | nibbles[:, 1::2] << 4).astype(np.uint8)
    coded = encode(packed.ravel(), "uint8", Shape.of(nibbles.shape, packed.nbytes))[1]
    assert len(coded) < 0.98 * entropy_bytes(nibbles)


def test_channels_that_are_alike_stay_together() -> None:
    codes = np.clip(np.rint(np.random.default_rng(0).standard_normal(1 << 20) * 30), -127, 127)
    data = codes.astype(np.int8).view(np.uint8)
    assert clustered(data, Shape(1024, 1024)) is None
    assert encode(data, "int8", Shape(1024, 1024)) == encode(data, "int8")


@pytest.mark.parametrize(
    ("dims", "size", "shape"),
    [
        ((4, 6), 24, Shape(6, 6)),
        ((4, 6), 12, Shape(3, 3)),
        ((4, 3, 2), 24, Shape(6, 2)),
        ((4, 5), 10, None),
        ((3, 5), 8, None),
        ((24,), 24, None),
        ((), 24, None),
        ((0, 4), 24, None),
    ],
)
def test_rows_are_of_whole_bytes(dims: tuple[int, ...], size: int, shape: Shape | None) -> None:
    assert Shape.of(dims, size) == shape


@pytest.fixture(scope="module")
def chunk() -> tuple[bytes, int]:
    codes = per_channel(256, 512, 0)
    coder, coded = encode(codes.view(np.uint8).ravel(), "int8", Shape(512, 512))
    assert coder is Coder.CLUSTERS
    return coded, codes.size


@pytest.mark.parametrize("width", [0, 1, 511, 513, 1 << 17, (1 << 32) - 1])
def test_layouts_that_do_not_fit_are_told(chunk: tuple[bytes, int], width: int) -> None:
    coded, size = chunk
    heads = (0, 1, 1 << 17, (1 << 32) - 1)
    for columns, number, head in itertools.product((0, 1), (0, 1, 3, 9, 255), heads):
        forged = struct.pack("<?BII", columns, number, width, head) + coded[HEAD:]
        with pytest.raises(CodingError):
            decoded(Coder.CLUSTERS, forged, "int8", size)


def test_changed_clusters_never_crash(chunk: tuple[bytes, int]) -> None:
    """Damage is told, or gives other numbers, which the checksums around a chunk tell; no other error."""
    coded, size = chunk
    right = decoded(Coder.CLUSTERS, coded, "int8", size)
    rng = np.random.default_rng(0)
    told = others = 0
    for _ in range(300):
        data = bytearray(coded)
        data[int(rng.integers(60 if rng.random() < 0.8 else len(data)))] ^= 1 << int(rng.integers(8))
        try:
            others += not np.array_equal(decoded(Coder.CLUSTERS, bytes(data), "int8", size), right)
        except CodingError:
            told += 1
    assert told > 100, "most changes of the head are told"
    assert told + others > 290, "hardly any bit can change without effect"


@pytest.mark.parametrize("length", [0, 5, HEAD, HEAD + 6, 40, -1])
def test_clusters_cut_short_are_told(chunk: tuple[bytes, int], length: int) -> None:
    coded, size = chunk
    with pytest.raises(CodingError):
        decoded(Coder.CLUSTERS, coded[:length], "int8", size)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", ""])
def test_clusters_are_of_8_bits(chunk: tuple[bytes, int], kind: str) -> None:
    coded, size = chunk
    with pytest.raises(CodingError, match="coder does not fit"):
        decoded(Coder.CLUSTERS, coded, kind, size)
