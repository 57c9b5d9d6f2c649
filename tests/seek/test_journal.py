"""The journal of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.errors import StoreError
from compress.seek.journal import Journal


def _never() -> float:
    raise AssertionError("worked out again")


def test_an_answer_is_worked_out_once_and_kept_exactly(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    assert journal.once("a", lambda: 0.1 + 0.2) == 0.1 + 0.2
    assert journal.once("a", _never) == 0.1 + 0.2
    assert Journal(path).once("a", _never) == 0.1 + 0.2


def test_a_line_that_was_cut_off_is_worked_out_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.once("a", lambda: 1.0)
    journal.once("b", lambda: {"loss": 2.0})
    path.write_text(path.read_text()[:-4])
    again = Journal(path)
    assert again.once("a", _never) == 1.0
    assert again.once("b", lambda: {"loss": 3.0}) == {"loss": 3.0}
    assert Journal(path).once("b", _never) == {"loss": 3.0}


def test_in_memory_an_error_is_no_answer() -> None:
    journal = Journal()
    with pytest.raises(AssertionError, match="worked out again"):
        journal.once("a", _never)
    assert journal.once("a", lambda: 1.0) == 1.0


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).once("a", lambda: 1.0)
    path.write_text(path.read_text().replace("[", "{"))
    with pytest.raises(StoreError, match="damaged; --fresh"):
        Journal(path)
