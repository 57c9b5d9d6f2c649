"""The command line as a whole: help, usage, errors, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress import cli
from compress.errors import RecipeError

Call = Callable[..., Any]
COMMANDS = ["run", "check", "schema", "passes", "estimate", "hardware", "compare", "pack", "unpack", "report"]
HEAVY = ["torch", "torchao", "onnx", "onnx_ir", "onnxruntime", "transformers", "scipy", "plotly"]
"""Packages that take long to import."""

RECIPE = Path(__file__).with_name("linear.yaml").read_text(encoding="utf-8")


def test_help_is_short_and_has_an_example(call: Call) -> None:
    overview = call("--help").out
    for command in COMMANDS:
        assert f"\n  {command}" in overview
        found = call(command, "-h")
        assert found.code == 0
        assert f"Example: compress {command}" in " ".join(found.out.split())
    assert "..." not in overview.partition("Commands:")[2]


def test_version(call: Call) -> None:
    assert call("--version").out.startswith("compress 0.")


@pytest.mark.parametrize("arguments", [["chekc"], ["run"], ["check", "a", "b"], ["run", "--frehs", "a"]])
def test_wrong_usage_ends_with_2(arguments: list[str], call: Call) -> None:
    found = call(*arguments)
    assert found.code == 2
    assert found.out == ""
    assert "Error: " in found.err


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compress", "--debug", "check", "no-such.yaml"])
    with pytest.raises(RecipeError):
        cli.main()


def test_help_and_checks_import_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "linear.onnx").touch()
    program = f"""
import sys
from compress.cli import app
for arguments in (["--help"], ["run", "--help"], ["check", "recipe.yaml"], ["schema"], ["passes"]):
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code, arguments
    print(arguments, sorted({HEAVY} & sys.modules.keys()), file=sys.stderr)
"""
    program = program.replace(f"{HEAVY} &", f"set({HEAVY}) &")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition("] ")[2] for line in done.stderr.splitlines()] == ["[]"] * 5


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    program = "from compress.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_an_error_that_nobody_foresaw_is_kept_in_a_file_and_told_in_a_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(path: str) -> None:
        raise ZeroDivisionError("of a kind")

    monkeypatch.setattr("compress.recipe.load", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = call("check", "recipe.yaml")
    assert found.code == 1
    assert found.err.startswith(
        "error: ZeroDivisionError: of a kind; this is a fault of compress: please report"
    )
    (kept,) = tmp_path.glob("compress-*.log")
    assert str(kept) in found.err
    assert "Traceback" in kept.read_text()


@pytest.mark.parametrize(
    ("error", "told"),
    [(MemoryError(), "not enough memory"), (PermissionError(13, "not allowed", "f"), "f: not allowed")],
)
def test_what_the_machine_refuses_is_told_in_a_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def broken(path: str) -> None:
        raise error

    monkeypatch.setattr("compress.recipe.load", broken)
    found = call("check", "recipe.yaml")
    assert (found.code, told in found.err) == (1, True)
