"""The log of a run."""

import logging
from pathlib import Path

import pytest

from compress.engine import log


def test_what_is_logged_in_a_run_goes_to_its_file(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("of an earlier run")
    with log.written(path):
        assert not path.exists()
        logging.getLogger("compress.engine.run").error("wählte %s", "ä")
        logging.getLogger("another.package").error("not ours")
    logging.getLogger("compress").error("after the run")
    assert path.read_text(encoding="utf-8").endswith(" ERROR wählte ä\n")
    assert path.read_text(encoding="utf-8").count("\n") == 1


def test_a_run_without_trouble_leaves_no_file(tmp_path: Path) -> None:
    with log.written(tmp_path / "log.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_printed_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with log.printed():
        logging.getLogger("compress").error("seen")
    logging.getLogger("compress").error("not seen")
    assert capsys.readouterr() == ("", "seen\n")
