"""The container of packed models: what is written is read back, by threads in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from compress.codec.coders import CHUNK_BYTES, Coder
from compress.codec.container import WORKERS, File, Reader, Writer, ahead, coded_bytes, is_packed
from compress.errors import ModelError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A packed file of a graph of 5 bytes and a weight of 3, neither of them coded."""
    path = tmp_path / "model.packed"
    with path.open("wb") as file:
        writer = Writer(file, "model.onnx")
        writer.add("", "", 5, iter([(Coder.RAW, b"graph")]))
        writer.add("w", "uint8", 3, iter([(Coder.RAW, b"abc")]))
        writer.finish([File(location="", sha256="", pieces=((0, 2), (1, 3), (0, 3)))])
    return path


def test_streams_come_back_by_their_numbers(path: Path) -> None:
    assert is_packed(path) and not is_packed(path.parent)
    with Reader(path) as reader:
        assert [bytes(reader.read(number)) for number in (1, 0)] == [b"abc", b"graph"]
        assert (reader.header.model, reader.index.bytes) == ("model.onnx", 8)
    assert coded_bytes(path) == {"w": 3.0}


def test_a_chunk_with_another_checksum_names_its_weight(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"abc", b"abd"))
    with Reader(path) as reader:
        assert bytes(reader.read(0)) == b"graph"
        with (
            pytest.raises(ModelError, match=r"model\.packed: damaged: w: its checksum is wrong"),
            reader.named(),
        ):
            reader.read(1)


def test_chunks_must_add_up_to_their_stream(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        writer = Writer(file, "model.onnx")
        with pytest.raises(ValueError, match="the chunks do not add up to the stream"):
            writer.add("w", "", CHUNK_BYTES + 1, iter([(Coder.RAW, b"")]))


def test_work_ahead_keeps_its_order_and_runs_little_ahead() -> None:
    started = []
    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            started.append(number)
        time.sleep(0.002 if number % 2 else 0)
        return number**2

    results = ahead(work, range(50))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(started) <= 3 + WORKERS
    assert list(results) == [number**2 for number in range(3, 50)]


def test_an_error_ahead_comes_out_in_its_place() -> None:
    results = ahead(lambda number: np.array(1 // (3 - number)), range(10))
    assert [int(next(results)) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
