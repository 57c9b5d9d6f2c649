"""A training as a value: files hold all of it, and what is learnt lands in the student."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compress.graph.batch import BatchAxes
from compress.train.examples import Batch
from compress.train.lesson import Lesson, learn, training_device
from compress.train.settings import ResolvedTraining


def _graph(weight: np.ndarray) -> ir.Model:
    """Return ``x weight`` over rows of three inputs."""
    numbers = ", ".join(map(str, weight.reshape(-1)))
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 3] x) => (float[N, 2] y) <float[3, 2] w = {{{numbers}}}> {{ y = MatMul(x, w) }}"""
    return ir.from_onnx_text(text)


@pytest.fixture
def lesson() -> Lesson:
    random = torch.Generator().manual_seed(0)
    rows = [torch.randn(8, 3, generator=random) for _ in range(6)]
    target = np.float32([[1, 0], [0, 1], [1, 1]])
    how = ResolvedTraining(epochs=20, batch_size=4, learning_rate=0.1, weight_decay=0.0, held_out=0.0)
    batches = [Batch({"x": x}, x @ torch.from_numpy(target)) for x in rows]
    weights, axes = ("w",), BatchAxes({"x": 0}, {0: 0})
    return Lesson(_graph(0.5 + 0 * target), weights, _graph(target), ("y",), batches, "mse", False, how, axes)


def _learnt(lesson: Lesson) -> np.ndarray:
    learn(lesson)
    tensor = lesson.student.graph.initializers["w"].const_value
    assert tensor is not None
    return tensor.numpy()


def test_files_hold_the_whole_lesson(lesson: Lesson, tmp_path: Path) -> None:
    lesson.save(tmp_path)
    again = Lesson.load(tmp_path)
    assert again.how == lesson.how
    for field in ("weights", "outputs", "distillation", "probabilities", "axes"):
        assert getattr(again, field) == getattr(lesson, field)
    np.testing.assert_array_equal(_learnt(again), _learnt(lesson))


def test_the_student_learns_what_the_teacher_does(lesson: Lesson) -> None:
    tensor = lesson.teacher.graph.initializers["w"].const_value
    assert tensor is not None
    wanted = tensor.numpy().copy()
    np.testing.assert_allclose(_learnt(lesson), wanted, atol=0.02)
    np.testing.assert_array_equal(tensor.numpy(), wanted)


def test_a_process_trains_on_the_gpu_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    for available, device in ((True, "cuda:1"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert training_device() == torch.device(device)
