"""Sessions on packed models: the weights are in memory, once each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compress import codec
from compress.errors import ModelError

TEXT = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w) y = MatMul(h, v) }"


@pytest.mark.parametrize("external", [False, True])
def test_equal_weights_and_options_of_the_session(
    build: Callable[..., Any], normal: Any, external: bool, tmp_path: Path
) -> None:
    weight = normal(32, 32)
    path, packed = tmp_path / "model.onnx", tmp_path / "model.packed"
    onnx.save(build(TEXT, w=weight, v=weight), path, save_as_external_data=external, size_threshold=0)
    codec.pack(path, packed)
    for file in (path, *tmp_path.glob("*.data")):
        file.unlink()
    session = codec.open(packed, threads=1)
    assert session.get_session_options().intra_op_num_threads == 1
    x = normal(2, 32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weight @ weight, rtol=1e-4, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".packed") == ["model.packed"]


def test_what_was_never_packed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(100))
    with pytest.raises(ModelError, match=r"model\.onnx: not a packed model"):
        codec.open(tmp_path / "model.onnx")
