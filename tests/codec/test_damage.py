"""Files cut short, changed and made up: an error or the right weights, nothing else."""

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zstandard

import compress
from compress import codec
from compress.codec.coders import Coder
from compress.errors import CompressError, ModelError, StoreError

Change = Callable[[np.random.Generator, bytearray], bytearray]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., onnx.ModelProto]) -> Path:
    """A packed model with weights that pcodec, clusters, zstandard and nothing code."""
    rng = np.random.default_rng(0)
    wide = rng.integers(2, size=40) * 120
    proto = build(
        "g (float[N,40] x) => (float[N,40] y) { a = MatMul(x, w)\n b = MatMul(a, z)\n d = MatMul(b, r)\n"
        "f = Cast<to=1>(c)\n e = Gemm<transB=1>(d, f)\n y = MatMul(e, f) }",
        w=rng.standard_normal((40, 40)).astype(np.float32),
        z=np.tile(rng.standard_normal(8).astype(np.float32), (40, 5)),
        r=rng.integers(0, 2**32, (40, 40), np.uint32).view(np.float32),
        c=rng.integers(-1 - wide, 2 + wide, (400, 40)).astype(np.int8),
    )
    path = tmp_path_factory.mktemp("damage") / "model.onnx"
    onnx.save(proto, path)
    index = codec.pack(path, path.with_suffix(".packed"))
    assert {chunk[0] for stream in index.streams for chunk in stream.chunks} == set(Coder)
    return path


def flipped(rng: np.random.Generator, data: bytearray) -> bytearray:
    for _ in range(rng.integers(1, 5)):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return data


def cut_short(rng: np.random.Generator, data: bytearray) -> bytearray:
    return data[: int(rng.integers(len(data)))]


def made_longer(rng: np.random.Generator, data: bytearray) -> bytearray:
    return data + rng.bytes(int(rng.integers(1, 100)))


def overwritten(rng: np.random.Generator, data: bytearray) -> bytearray:
    start, size = int(rng.integers(len(data))), int(rng.integers(1, 200))
    data[start : start + size] = rng.bytes(size)
    return data


def moved(rng: np.random.Generator, data: bytearray) -> bytearray:
    start, end = sorted(int(each) for each in rng.integers(len(data), size=2))
    return data[:start] + data[end:] + data[start:end]


def head_changed(rng: np.random.Generator, data: bytearray) -> bytearray:
    data[int(rng.integers(600))] = int(rng.integers(256))
    return data


CHANGES = (flipped, cut_short, made_longer, overwritten, moved, head_changed)


def try_damaged(model: Path, change: Change, seed: int) -> None:
    """Damage the packed file; see that it is refused, or gives the model and its outputs."""
    original = model.with_suffix(".packed").read_bytes()
    data = bytes(change(np.random.default_rng(seed), bytearray(original)))
    damaged = model.with_name("damaged.packed")
    damaged.write_bytes(data)
    restored = model.with_name("restored.onnx")
    restored.unlink(missing_ok=True)
    try:
        codec.unpack(damaged, restored)
    except ModelError as error:
        assert str(damaged) in str(error)
        assert not restored.exists()
        with pytest.raises(ModelError):
            compress.open(damaged)
    else:
        assert restored.read_bytes() == model.read_bytes()
        compress.open(damaged)


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_file_is_refused_or_right(model: Path, change: Change) -> None:
    for seed in range(60):
        try_damaged(model, change, seed)


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_refused_or_right(model: Path) -> None:
    for seed in range(1000, 11_000):
        try_damaged(model, CHANGES[seed % len(CHANGES)], seed)


class Forged:
    """A packed file taken apart, to be put together with checksums that are right."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        self.header = json.loads(data[8 : 8 + size])
        self.said = json.loads(self.header["__metadata__"]["compress"])
        start, end = self.header["index"]["data_offsets"]
        self.weights = bytearray(data[8 + size : 8 + size + start])
        self.index = json.loads(zstandard.decompress(data[8 + size + start : 8 + size + end]))

    def write(self, path: Path) -> Path:
        """Seal what is there now."""
        plain = json.dumps(self.index).encode()
        coded = zstandard.compress(plain)
        self.said |= {"index_bytes": len(plain), "index_crc32": zlib.crc32(coded)}
        self.header["__metadata__"]["compress"] = json.dumps(self.said)
        start, end = len(self.weights), len(self.weights) + len(coded)
        self.header["weights"] |= {"shape": [start], "data_offsets": [0, start]}
        self.header["index"] |= {"shape": [len(coded)], "data_offsets": [start, end]}
        header = json.dumps(self.header).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + self.weights + coded)
        return path


@pytest.fixture
def forged(model: Path) -> Forged:
    return Forged(model.with_suffix(".packed"))


def numbers(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every number of a document as its container and key."""
    for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(item, int):
            yield tree, key
        elif isinstance(item, dict | list):
            yield from numbers(item)


def refused(path: Path, folder: Path) -> str:
    """Return why a file is refused."""
    with pytest.raises(CompressError) as caught:
        codec.unpack(path, folder / "restored.onnx")
    assert not (folder / "restored.onnx").exists()
    return str(caught.value)


@pytest.mark.parametrize("value", [-1, 0, 1, 3, 1 << 31, 1 << 62, 1 << 100, 0.5, None, "1", [], True])
def test_an_index_with_another_number_is_refused(model: Path, value: Any, tmp_path: Path) -> None:
    count = sum(1 for _ in numbers(Forged(model.with_suffix(".packed")).index))
    for number in range(count):
        forged = Forged(model.with_suffix(".packed"))
        tree, key = list(numbers(forged.index))[number]
        if tree[key] != value:
            tree[key] = value
            refused(forged.write(tmp_path / "forged"), tmp_path)


def test_codes_that_are_changed_under_a_right_checksum_never_crash(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        forged = Forged(model.with_suffix(".packed"))
        forged.weights = overwritten(rng, forged.weights)[: len(forged.weights)]
        at = 0
        for stream in forged.index["streams"]:
            for chunk in stream["chunks"]:
                chunk[2] = zlib.crc32(forged.weights[at : at + chunk[1]])
                at += chunk[1]
        refused(forged.write(tmp_path / "forged"), tmp_path)  # the SHA-256 of the model is another
        try:
            compress.open(tmp_path / "forged")
        except ModelError:
            continue


@pytest.mark.parametrize("location", ["", "..", "../x", "/x", "a/../../x", "c:x", "a\\b", "\0"])
def test_paths_lead_nowhere_else(forged: Forged, location: str, tmp_path: Path) -> None:
    forged.index["files"].append({"location": location, "sha256": "", "pieces": []})
    assert "not a packed model" in refused(forged.write(tmp_path / "forged"), tmp_path)


def test_a_link_in_the_folder_is_not_followed_out_of_it(forged: Forged, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    forged.index["files"].append({"location": "link/x", "sha256": empty, "pieces": []})
    with pytest.raises(StoreError, match="leads out of"):
        codec.unpack(forged.write(tmp_path / "forged"), tmp_path / "in" / "restored.onnx")
    assert not list((tmp_path / "out").iterdir())


def add_zeros(forged: Forged, chunks: int) -> list[int]:
    """Add a weight of little but zeros; return it as a piece of a file."""
    coded = zstandard.compress(bytes(8 << 20))
    size = chunks * (8 << 20)
    entry = [1, len(coded), zlib.crc32(coded)]
    forged.weights += coded * chunks
    forged.index["streams"].append({"name": "", "kind": "", "bytes": size, "chunks": [entry] * chunks})
    return [len(forged.index["streams"]) - 1, size]


def test_a_model_larger_than_onnx_allows_is_refused(forged: Forged, tmp_path: Path) -> None:
    forged.index["files"][0]["pieces"].append(add_zeros(forged, 256))
    path = forged.write(tmp_path / "forged")
    assert path.stat().st_size < 1 << 20
    assert "larger than an ONNX file can be" in refused(path, tmp_path)


def test_more_than_memory_or_disk_holds_is_refused(forged: Forged, tmp_path: Path) -> None:
    pieces = [add_zeros(forged, 100)] * 100_000  # 84 TB
    forged.index["files"].append({"location": "x", "sha256": "", "pieces": pieces})
    path = forged.write(tmp_path / "forged")
    assert "bytes free" in refused(path, tmp_path)
    with pytest.raises(ModelError, match="of memory"):
        compress.open(path)


def test_later_formats_are_told(forged: Forged, tmp_path: Path) -> None:
    forged.said["format"] = 2
    assert "has format 2; this version reads 1" in refused(forged.write(tmp_path / "forged"), tmp_path)


@pytest.mark.parametrize("header", [b"", b"{}", b"[" * 50_000, b"{" * 100, b'{"__metadata__": 1}', b"null"])
def test_headers_that_are_none(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "forged").write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    assert "not a packed model" in refused(tmp_path / "forged", tmp_path)
