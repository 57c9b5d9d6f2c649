"""The commands pack and unpack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.mark.usefixtures("linear")
def test_a_model_is_packed_and_unpacked(call: Call, tmp_path: Path) -> None:
    packed = json.loads(call("pack", "linear.onnx", "linear.packed", "--json").out)
    assert packed["packed_bytes"] == (tmp_path / "linear.packed").stat().st_size < packed["model_bytes"]
    assert call("unpack", "linear.packed", "again.onnx").out == "again.onnx\n"
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "linear.onnx").read_bytes()


def test_a_damaged_packed_file_is_bad_input(call: Call, tmp_path: Path) -> None:
    (tmp_path / "linear.packed").write_bytes(b"no packed file")
    found = call("unpack", "linear.packed", "linear.onnx")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("error: linear.packed: not a packed model")
