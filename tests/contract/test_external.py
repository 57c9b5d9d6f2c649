"""Weights beside the file: whatever takes a model takes one whose weights lie in another file.

The product writes such files above 1.5 GB; here the limit is lowered to 10 kB.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import compress
from compress import codec, evaluate
from compress.graph import files
from compress.graph.session import session
from compress.model import Model
from compress.passes.base import REGISTRY

SETTINGS: dict[str, dict[str, Any]] = {
    "finetune": {"epochs": 1},
    "qat": {"epochs": 1},
    "per-layer": {"weights": {"a": 4, "b": 8}, "activations": ["b"]},
}
PROFILES = ("eyeriss-v1", "cpu")


@pytest.fixture
def brought(
    build: Callable[..., onnx.ModelProto],
    normal: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Model:
    """A model read from a file with its weights beside it, as large as any to the product."""
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 10_000)
    body = "h = MatMul(x, a) r = Relu(h) t = Reshape(r, s) y = Gemm(t, b, c)"
    weights = {"a": normal(64, 64) / 8, "b": normal(64, 8) / 8, "c": normal(8), "s": np.array([-1, 64])}
    path = tmp_path / "brought" / "m.onnx"
    path.parent.mkdir()
    onnx.save(
        build(f"g (float[N,64] x) => (float[N,8] y) {{ {body} }}", **weights),
        path,
        save_as_external_data=True,
        location="m.bin",
        size_threshold=0,
    )
    return compress.load(path, calibration=[{"x": normal(16, 64)} for _ in range(3)])


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_what_a_pass_writes_is_read_everywhere(name: str, brought: Model, tmp_path: Path) -> None:
    kind = REGISTRY[name]
    before = "int8-static" if kind.needs_quantized else "sparsify" if name == "finetune" else ""
    model = REGISTRY[before]()(brought) if before else brought
    result = kind(**SETTINGS.get(name, {}))(model)
    path = result.save(tmp_path / "new.onnx")
    feeds = next(brought.batches())
    (wanted,) = result.run(feeds)
    np.testing.assert_array_equal(session(path).run(None, feeds)[0], wanted)
    again = compress.load(path)
    np.testing.assert_array_equal(again.run(feeds)[0], wanted)
    for profile in PROFILES:
        assert (
            compress.estimate(path, profile).total.macs == compress.estimate(result, profile).total.macs > 0
        )
    codec.pack(path, tmp_path / "m.packed")
    (packed,) = codec.open(tmp_path / "m.packed").run(None, feeds)
    np.testing.assert_array_equal(packed, wanted)


def test_passes_follow_one_another_through_files(brought: Model, tmp_path: Path) -> None:
    path = brought.save(tmp_path / "0.onnx")
    assert path.with_name("0.onnx.data").exists()
    for number, (name, settings) in enumerate(
        {"prune-channels": {"ratio": 0.25}, "integer-weights": {"bits": 4}, "fold": {}}.items(), start=1
    ):
        model: Any = compress.load(path, calibration=list(brought.batches()))
        path = REGISTRY[name](**settings)(model).save(tmp_path / f"{number}.onnx")
    found = evaluate.compare(tmp_path / "0.onnx", path, data=brought.calibration)
    assert np.isfinite(found.agreement.snr_db)
