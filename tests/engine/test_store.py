"""The store: whole results or none, keys that follow from content."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from compress.engine import store
from compress.errors import StoreError


@pytest.fixture
def kept(tmp_path: Path) -> store.Store:
    return store.Store(tmp_path / ".store")


def test_a_result_is_kept_under_its_key(kept: store.Store) -> None:
    with kept.locked():
        assert kept.get("k") is None
        kept.put("k", lambda folder: (folder / "a").write_text("1") and None)
        assert (kept.get("k") or Path()).joinpath("a").read_text() == "1"


def test_a_writer_that_fails_leaves_nothing(kept: store.Store) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("in the middle")

    with kept.locked():
        with pytest.raises(RuntimeError, match="in the middle"):
            kept.put("k", fail)
        assert kept.get("k") is None
        assert [path.name for path in kept.folder.iterdir()] == ["lock"]


def test_leftovers_of_a_killed_run_are_cleared(kept: store.Store) -> None:
    (kept.folder / ".partial-killed").mkdir(parents=True)
    with kept.locked():
        assert not (kept.folder / ".partial-killed").exists()


def _hold(
    folder: Path, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event
) -> None:
    with store.Store(folder).locked():
        ready.set()
        done.wait(20)


def test_a_second_run_in_the_same_folder_is_refused(kept: store.Store) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(kept.folder, ready, done))
    other.start()
    try:
        assert ready.wait(20)
        with pytest.raises(StoreError, match="another run uses this folder"), kept.locked():
            pass
    finally:
        done.set()
        other.join()


def test_clear_forgets_results(kept: store.Store) -> None:
    with kept.locked():
        kept.put("k", lambda folder: None)
        kept.clear()
        assert kept.get("k") is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match=r"file.*cannot be written"),
        store.Store(tmp_path / "file" / "s").locked(),
    ):
        pass


def test_keys_follow_content() -> None:
    assert store.key("a", 1) == store.key("a", 1)
    assert store.key("a", 1) != store.key("a", 2)
    assert store.key({"x": 1, "y": 2}) == store.key({"y": 2, "x": 1})


def test_code_digest_sees_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import json\nfrom part import x\n")
    (tmp_path / "part.py").write_text("x = 1\n")
    before = store.code_digest(tmp_path / "main.py")
    assert store.code_digest(tmp_path / "main.py") == before
    (tmp_path / "part.py").write_text("x = 2\n")
    assert store.code_digest(tmp_path / "main.py") != before


def test_file_digest_of_a_folder_sees_every_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = store.file_digest(tmp_path)
    (tmp_path / "weights").write_text("w")
    assert store.file_digest(tmp_path) != before


def test_only_writing_is_called_a_failure_of_the_store(kept: store.Store) -> None:
    with pytest.raises(FileNotFoundError), kept.locked():
        Path("no-such-file").read_text()


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "score.json").write_text("{")
    assert store.read(tmp_path / "score.json", str.strip) == "{"
    with pytest.raises(StoreError, match=r"score\.json: damaged; --fresh does all work again"):
        store.read(tmp_path / "score.json", json.loads)


def test_a_reference_is_hashed_by_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("x = 1\n")
    (tmp_path / "net.onnx").write_text("weights")
    assert store.digest("net.py:build", tmp_path) == store.code_digest(tmp_path / "net.py")
    assert store.digest("net.onnx", tmp_path) == store.file_digest(tmp_path / "net.onnx")
