"""Several processes train as one, and say what broke one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from compress.data import Data
from compress.errors import PassError
from compress.model import Model
from compress.passes import Finetune
from compress.train.lesson import SETTINGS, Lesson


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def model() -> Model:
    """``tanh(x first) second`` over four inputs."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 4] x) => (float[N, 3] y) { a = MatMul(x, first) h = Tanh(a) y = MatMul(h, second) }"""
    proto = onnx.parser.parse_model(text)
    arrays = {"first": _random(4, 6), "second": _random(6, 3, seed=1)}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return Model(ir.from_proto(proto), calibration=Data([(_random(64, 4), np.arange(64) % 3)]))


def _weights(model: Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def test_two_processes_train_as_one(model: Model) -> None:
    settings: dict[str, Any] = {
        "epochs": 3,
        "held_out": 0,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0,
    }
    together = _weights(Finetune(processes=2, batch_size=8, **settings)(model))
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], "threads that outlive their group abort at exit"
    # Two processes with batches of 8 take the steps of one with batches of 16.
    alone = _weights(Finetune(batch_size=16, **settings)(model))
    for name, weight in alone.items():
        np.testing.assert_allclose(together[name], weight, rtol=1e-4, atol=1e-5)


def test_the_error_of_another_process_is_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Lesson.save

    def broken(lesson: Lesson, folder: Path) -> None:
        save(lesson, folder)
        (folder / SETTINGS).write_text("{")

    monkeypatch.setattr(Lesson, "save", broken)
    with pytest.raises(PassError, match=r"process 2 of 2 failed: .*JSONDecodeError"):
        Finetune(processes=2, batch_size=8)(model)


def test_too_few_batches_are_told(model: Model) -> None:
    with pytest.raises(PassError, match="1 batches are too few for 2 processes"):
        Finetune(processes=2)(model)
