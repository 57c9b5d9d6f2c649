"""The commands on recipes and their runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.passes import Int8Weights
from compress.recipe import schema

Call = Callable[..., Any]
RECIPE = Path(__file__).with_name("linear.yaml").read_text(encoding="utf-8")


@pytest.mark.usefixtures("linear")
def test_check_says_what_would_run(call: Call) -> None:
    Path("recipe.yaml").write_text(RECIPE + "budget: {file: 30%}")
    found = call("check", "recipe.yaml")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("recipe.yaml is valid: 2 variants of linear.onnx")
    assert "integer-weights" in found.out and "file 30%" in found.out
    record = json.loads(call("check", "recipe.yaml", "--json").out)
    assert record["variants"][1]["passes"] == [str(Int8Weights())]


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_bad_recipe_is_one_line(command: str, call: Call) -> None:
    Path("recipe.yaml").write_text("version: 1\nmodle: a.onnx")
    found = call(command, "recipe.yaml")
    assert found == (2, "", "error: recipe.yaml:2:1: unknown key 'modle'; did you mean 'model'?\n")
    assert list(Path().iterdir()) == [Path("recipe.yaml")]


def test_schema_is_one_json_document(call: Call) -> None:
    assert json.loads(call("schema").out) == schema()


@pytest.mark.usefixtures("linear")
def test_run_writes_and_prints_what_it_found(call: Call) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    first = call("run", "recipe.yaml")
    assert first.code == 0
    assert "int8" in first.out and "eyeriss-v1" in first.out
    for name in ("results.json", "report.html", "int8/model.onnx"):
        assert Path("runs/recipe", name).stat().st_size > 100
    second = call("run", "recipe.yaml", "--json")
    assert (second.code, second.err) == (0, "")
    assert json.loads(second.out) == json.loads(Path("runs/recipe/results.json").read_text())
    Path("runs/recipe/report.html").unlink()
    told, again = (each.out.partition("this run:")[0] for each in (first, call("report", "runs/recipe")))
    assert told == again  # what the run itself cost is that of the last one
    assert Path("runs/recipe/report.html").exists()


@pytest.mark.usefixtures("linear")
def test_run_tells_missed_limits_from_failures(call: Call) -> None:
    Path("recipe.yaml").write_text(
        RECIPE + "  stuck: [int8-weights: {include: [nowhere]}]\nbudget: {file: 10%}"
    )
    missed = call("run", "recipe.yaml", "--variant", "int8", "-o", "out")
    assert missed.code == 3
    assert "missed a limit: file of" in missed.out
    failed = call("run", "recipe.yaml", "-o", "out")
    assert failed.code == 1
    assert "stuck failed: integer-weights" in failed.out and "missed a limit" in failed.out


@pytest.mark.usefixtures("linear")
def test_run_knows_its_variants(call: Call) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    found = call("run", "recipe.yaml", "--variant", "int88")
    assert found == (2, "", "error: recipe.yaml: there is no variant 'int88'; did you mean 'int8'?\n")
    assert not Path("runs").exists()


@pytest.mark.usefixtures("linear")
def test_a_stopped_run_says_how_to_continue(call: Call) -> None:
    Path("stop.py").write_text("def data():\n    raise KeyboardInterrupt")
    Path("recipe.yaml").write_text(RECIPE + "data: stop.py:data")
    found = call("run", "recipe.yaml")
    assert found.code == 130
    assert found.err.endswith("stopped; run the same command again to continue\n")


def test_report_needs_results(call: Call) -> None:
    found = call("report", "nowhere")
    assert found.code == 2
    assert found.err.startswith("error: nowhere/results.json: No such file")


@pytest.mark.usefixtures("linear")
def test_verbose_prints_the_traceback_of_an_unexpected_error(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Int8Weights, model: Any) -> Any:
        raise ZeroDivisionError("a slip in the code")

    monkeypatch.setattr(Int8Weights, "apply", fail)
    Path("recipe.yaml").write_text(RECIPE)
    quiet = call("run", "recipe.yaml")
    assert quiet.code == 1
    assert "int8 failed: ZeroDivisionError: a slip in the code (traceback in log.txt)" in squeezed(quiet.out)
    assert "Traceback" not in quiet.err
    loud = call("run", "recipe.yaml", "-v")
    assert loud.code == 1
    assert "int8 failed: ZeroDivisionError" in squeezed(loud.out)
    assert "variant int8 failed\nTraceback" in loud.err
    assert "traceback in log.txt" in Path("runs/recipe/report.html").read_text()
    assert "a slip in the code" in Path("runs/recipe/log.txt").read_text()
