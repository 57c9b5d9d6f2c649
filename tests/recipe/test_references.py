"""What a recipe points at is found, and not run."""

from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from compress import recipe

Write = Callable[..., Path]
Complaint = Callable[[Path], str]

HEAD = "version: 1\nmodel: net.py:build\n"
"""Two lines, so that what a test adds begins in line 3."""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("net.py", "'net.py' names no function; write net.py:function"),
        ("net.py:biuld", "net.py defines no 'biuld'; did you mean 'build'?"),
        ("nett.py:build", "nett.py: No such file or directory; did you mean 'net.py'?"),
        ("bad.py:build", "bad.py:1: not valid Python: "),
        ("net.onxx", "net.onxx: no such file or folder"),
        ("empty", "empty: a folder is a model only with a config.json (Hugging Face)"),
        (
            "weights.pth",
            "weights.pth: a model is an .onnx or .pt2 file, a Hugging Face folder, or file.py:function",
        ),
        ("package:no_such_package/x.onnx", "package:no_such_package/x.onnx: no package 'no_such_package'"),
        ("package:numpy.linalg/x", "'package:numpy.linalg/x' should be package:NAME/inner/path"),
        ("package:numpy/../secret.onnx", "'package:numpy/../secret.onnx' should be package:NAME/inner/path"),
    ],
)
def test_the_model_must_exist(model: str, message: str, write: Write, complaint: Complaint) -> None:
    Path("empty").mkdir()
    Path("bad.py").write_text("def build(:")
    Path("weights.pth").touch()
    found = complaint(write(f"version: 1\nvariants: {{a: []}}\nmodel: {model}"))
    assert found.startswith("recipe.yaml:3:8: ")
    assert message in found


def test_a_model_may_come_with_an_installed_package(write: Write, complaint: Complaint) -> None:

    inner = Path(jsonschema.__file__).with_name("model.onnx")
    text = "version: 1\nvariants: {a: []}\nmodel: package:jsonschema/"
    assert f"{inner}: no such file" in complaint(write(text + "model.onnx"))
    assert "config.json" in complaint(write(text + "tests"))


def test_functions_are_found_without_running_the_file(write: Write, complaint: Complaint) -> None:
    write("raise SystemExit\nfrom os import path as build\nif True:\n    data = 1\n", "net.py")
    assert recipe.load(write(HEAD + "data: net.py:data\nvariants: {a: []}")).model == "net.py:build"
    message = complaint(write(HEAD + "data: data\nvariants: {a: []}"))
    assert message == "recipe.yaml:3:7: 'data' should be file.py:function"


def test_paths_are_relative_to_the_recipe_that_names_them(write: Write) -> None:
    write("def build(): ...", "shared/net.py")
    write("{}", "shared/chip.yaml")
    write("version: 1\nmodel: net.py:build\nhardware: [chip.yaml]", "shared/base.yaml")
    loaded = recipe.load(write("extends: ../shared/base.yaml\nvariants: {a: []}", "mine/recipe.yaml"))
    assert loaded.model == "../shared/net.py:build"
    assert (loaded.home / "../shared/net.py").exists()
    assert Path(loaded.hardware[0]).exists()
