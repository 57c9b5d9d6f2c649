import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import pytest

from compress import cli
from compress.errors import RecipeError
from compress.passes import Int8Weights
from compress.passes.base import REGISTRY
from compress.passes.prune_channels import PruneChannels
from compress.recipe import schema
from compress.report import describe

COMMANDS = ["run", "check", "schema", "passes", "estimate", "hardware", "compare", "pack", "unpack", "report"]
HEAVY = ["torch", "torchao", "onnx", "onnx_ir", "onnxruntime", "transformers", "scipy", "plotly"]
"""Packages that take long to import."""

RECIPE = """
version: 1
model: linear.onnx
hardware: [eyeriss-v1]
latency: 2
variants:
  original: []
  int8: [int8-weights]
"""


class Called(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Called]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["compress", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return Called(int(caught.value.code or 0), *capsys.readouterr())

    return call


def save_linear(path: str = "linear.onnx", inputs: int = 256, outputs: int = 8) -> None:
    """Save a matrix product with an open batch size."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", inputs]))
    array = np.random.default_rng(0).normal(size=(inputs, outputs)).astype(np.float32)
    weight = ir.Value(name="w", const_value=ir.tensor(array, name="w"))
    node = ir.node("MatMul", [x, weight], name="linear")
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = x.type, ir.Shape(["batch", outputs])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 21}, name="g")
    ir.save(ir.Model(graph, ir_version=10), path)


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


def test_check_says_what_would_run(call: Call) -> None:
    save_linear()
    Path("recipe.yaml").write_text(RECIPE + "budget: {file: 30%}")
    found = call("check", "recipe.yaml")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("recipe.yaml is valid: 2 variants of linear.onnx")
    assert "integer-weights" in found.out and "file 30%" in found.out
    record = json.loads(call("check", "recipe.yaml", "--json").out)
    assert record["variants"][1]["passes"] == [str(Int8Weights())]


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_bad_recipe_is_one_line(command: str, call: Call) -> None:
    Path("recipe.yaml").write_text("version: 1\nmodle: a.onnx")
    found = call(command, "recipe.yaml")
    assert found == (2, "", "error: recipe.yaml:2:1: unknown key 'modle'; did you mean 'model'?\n")
    assert list(Path().iterdir()) == [Path("recipe.yaml")]


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compress", "--debug", "check", "no-such.yaml"])
    with pytest.raises(RecipeError):
        cli.main()


def test_schema_is_one_json_document(call: Call) -> None:
    assert json.loads(call("schema").out) == schema()


def test_passes_are_listed(call: Call) -> None:
    listed = call("passes").out
    assert all(f"\n{name} " in listed for name in REGISTRY)


def test_a_pass_is_explained_by_its_definition(call: Call) -> None:
    shown = call("passes", "prune-channels").out
    assert " ".join((PruneChannels.__doc__ or "").split()[:20]) in " ".join(shown.split())
    assert "ratio" in shown and "0.3" in shown and "number, above 0, below 1" in shown
    assert "Fraction of the channels that is removed" in shown
    names = [setting.name for setting in describe.settings(PruneChannels)]
    assert sorted(names) == sorted(PruneChannels.model_fields)
    assert names[-2:] == ["include", "exclude"]


def test_an_unknown_pass_or_profile_is_bad_input(call: Call) -> None:
    assert call("passes", "prune-chanels")[::2] == (
        2,
        "error: unknown pass 'prune-chanels'; did you mean 'prune-channels'?\n",
    )
    assert call("hardware", "eyeris-v1")[::2] == (
        2,
        "error: unknown hardware 'eyeris-v1'; did you mean 'eyeriss-v1'?\n",
    )


def test_hardware_shows_every_number_with_its_source(call: Call) -> None:
    from compress.estimator import catalogue

    listed = call("hardware").out
    assert all(f"\n{name} " in listed for name in catalogue.ids())
    shown = call("hardware", "eyeriss-v1").out
    for path, number in catalogue.load("eyeriss-v1").quantities():
        assert path in shown
        assert number.source in shown


def test_estimate_scores_any_onnx_file(call: Call) -> None:
    save_linear()
    found = call("estimate", "linear.onnx", "--hardware", "eyeriss-v1", "--layers")
    assert found.code == 0
    assert "linear" in found.out and "MatMul" in found.out
    few = json.loads(call("estimate", "linear.onnx", "--hardware", "eyeriss-v1", "--json").out)
    many = json.loads(
        call("estimate", "linear.onnx", "--hardware", "eyeriss-v1", "--json", "--shape", "x=10x256").out
    )
    assert few["hardware"]["eyeriss-v1"]["macs"] == 256 * 8
    assert many["hardware"]["eyeriss-v1"]["macs"] == 256 * 8 * 10
    assert "layers" not in few["hardware"]["eyeriss-v1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such.onnx"], "no-such.onnx: no such file or folder"),
        (["linear.onnx", "--shape", "x=1xb"], "--shape x=1xb: write NAME=SIZES, such as x=1x3x224x224"),
        (["linear.onnx", "--shape", "1x3"], "--shape 1x3: write NAME=SIZES, such as x=1x3x224x224"),
        (["linear.onnx", "--hardware", "abacus"], "unknown hardware 'abacus'"),
    ],
)
def test_estimate_refuses(arguments: list[str], message: str, call: Call) -> None:
    save_linear()
    found = call("estimate", *arguments)
    assert found.code == 2
    assert found.err.startswith(f"error: {message}")


def test_run_writes_and_prints_what_it_found(call: Call) -> None:
    save_linear()
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
    assert call("report", "runs/recipe").out == first.out
    assert Path("runs/recipe/report.html").exists()


def test_run_tells_missed_limits_from_failures(call: Call) -> None:
    save_linear()
    Path("recipe.yaml").write_text(RECIPE + "  stuck: [fold]\nbudget: {file: 10%}")
    missed = call("run", "recipe.yaml", "--variant", "int8", "-o", "out")
    assert missed.code == 3
    assert "missed a limit: file of" in missed.out
    failed = call("run", "recipe.yaml", "-o", "out")
    assert failed.code == 1
    assert "stuck failed: fold" in failed.out and "missed a limit" in failed.out


def test_run_knows_its_variants(call: Call) -> None:
    save_linear()
    Path("recipe.yaml").write_text(RECIPE)
    found = call("run", "recipe.yaml", "--variant", "int88")
    assert found == (2, "", "error: recipe.yaml: there is no variant 'int88'; did you mean 'int8'?\n")
    assert not Path("runs").exists()


def test_a_stopped_run_says_how_to_continue(call: Call) -> None:
    save_linear()
    Path("stop.py").write_text("def data():\n    raise KeyboardInterrupt")
    Path("recipe.yaml").write_text(RECIPE + "data: stop.py:data")
    found = call("run", "recipe.yaml")
    assert found.code == 130
    assert found.err.endswith("stopped; run the same command again to continue\n")


def test_a_model_is_packed_and_unpacked(call: Call, tmp_path: Path) -> None:
    save_linear()
    packed = json.loads(call("pack", "linear.onnx", "linear.packed", "--json").out)
    assert packed["packed_bytes"] == (tmp_path / "linear.packed").stat().st_size < packed["model_bytes"]
    assert call("unpack", "linear.packed", "again.onnx").out == "again.onnx\n"
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "linear.onnx").read_bytes()


def test_a_damaged_packed_file_is_bad_input(call: Call, tmp_path: Path) -> None:
    (tmp_path / "linear.packed").write_bytes(b"no packed file")
    found = call("unpack", "linear.packed", "linear.onnx")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("error: linear.packed: not a packed model")


def test_report_needs_results(call: Call) -> None:
    found = call("report", "nowhere")
    assert found.code == 2
    assert found.err.startswith("error: nowhere/results.json: No such file")


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
