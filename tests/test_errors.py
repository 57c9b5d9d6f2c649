"""Errors: one tree, one message, an exit code."""

from pathlib import Path

import pytest

from compress import errors
from compress.errors import (
    CompressError,
    DataError,
    InputError,
    PassError,
    StoreError,
    blame,
    did_you_mean,
    first_line,
    writing,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_docstring_draws_the_tree(kind: type[CompressError]) -> None:
    assert issubclass(kind, CompressError)
    drawn = (errors.__doc__ or "").splitlines()
    (line,) = [each for each in drawn if each.strip("│├└─ ").startswith(f"{kind.__name__} ")]
    assert line.startswith("    │") == (InputError in kind.__mro__[1:])
    if "exit" in line:
        assert f"exit {kind.exit_code}" in line


def test_foreign_errors_are_blamed_on_what_raised_them() -> None:
    here = rf"{Path(__file__).name}:\d+"
    with (
        pytest.raises(DataError, match=rf"^the data: KeyError: 'x' \(.*{here}\)$"),
        blame("the data", DataError),
    ):
        raise KeyError("x")
    with pytest.raises(PassError, match=r"^as it was$"), blame("the data", DataError):
        raise PassError("as it was")


def test_suggestions() -> None:
    assert did_you_mean("flod", ["fold", "int8"]) == "; did you mean 'fold'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("zzz", []) == ""
    assert did_you_mean("zzz", map(str, range(40))).endswith(" and 10 more")


def test_what_the_system_refuses_is_a_store_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there.*cannot be written: No such file"), writing(tmp_path):
        (tmp_path / "not" / "there").write_text("")


def test_only_the_first_line_of_a_message_is_shown() -> None:
    assert first_line(ValueError("\nfirst\nsecond")) == "first"
    assert first_line(ValueError()) == ""
