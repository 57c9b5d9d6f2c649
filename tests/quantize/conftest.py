"""What tests of quantized graphs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from compress.graph.session import session
from compress.model import Model


@pytest.fixture
def running(tmp_path: Path) -> Callable[[Model], list[str]]:
    """The operators that the runtime really runs."""

    def names(model: Model) -> list[str]:
        session(model.ir, optimized_to=tmp_path / "run.onnx")
        return [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]

    return names
