"""Progress on stderr."""

import pytest

from compress.progress import step, track


def test_items_pass_through_and_nothing_is_said_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(track(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_step_is_one_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with step("folding [bold]x[/bold]"):
        assert capsys.readouterr() == ("", "folding [bold]x[/bold]\n")
    assert capsys.readouterr() == ("", "")
