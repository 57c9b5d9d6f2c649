"""A training as a value: all that a process needs to take part in it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from compress.graph.batch import NO_BATCH, BatchAxes
from compress.graph.files import read, save
from compress.train.examples import Batch, Examples, taught
from compress.train.loop import Outcome, Report, train
from compress.train.objective import Distillation, Objective
from compress.train.settings import ResolvedTraining
from compress.trainable.module import Trainable

STUDENT, TEACHER, DATA, SETTINGS = "student.onnx", "teacher.onnx", "data.pt", "settings.json"


@dataclass(frozen=True)
class Lesson:
    """What is trained, on which data, and towards which goal.

    Attributes:
        student: the graph that is trained, in place.
        weights: names of its initializers that are trained.
        teacher: the graph whose outputs and hidden values are imitated.
        outputs: names of the outputs, the same in both graphs.
        batches: the training data.
        distillation: how the teacher is imitated; None trains on labels alone.
        probabilities: whether the first output has gone through a softmax.
        how: the settings.
        axes: where the samples of a batch lie, if they are mixed.
    """

    student: ir.Model
    weights: tuple[str, ...]
    teacher: ir.Model
    outputs: tuple[str, ...]
    batches: list[Batch]
    distillation: Distillation | None
    probabilities: bool
    how: ResolvedTraining
    axes: BatchAxes = NO_BATCH

    def save(self, folder: Path) -> None:
        """Write the lesson into a folder, for other processes."""
        save(self.student, folder / STUDENT)
        save(self.teacher, folder / TEACHER)
        torch.save([(batch.feeds, batch.labels) for batch in self.batches], folder / DATA)
        settings = {
            "weights": self.weights,
            "outputs": self.outputs,
            "distillation": self.distillation,
            "probabilities": self.probabilities,
            "how": self.how.model_dump(mode="json"),
            "axes": [list(self.axes.inputs.items()), list(self.axes.outputs.items())],
        }
        (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Lesson:
        """Return the lesson that `save` wrote."""
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        data = torch.load(folder / DATA, weights_only=True)
        return cls(
            student=read(folder / STUDENT),
            teacher=read(folder / TEACHER),
            batches=[Batch(feeds, labels) for feeds, labels in data],
            weights=tuple(settings.pop("weights")),
            outputs=tuple(settings.pop("outputs")),
            how=ResolvedTraining(**settings.pop("how")),
            axes=BatchAxes(*map(dict, settings.pop("axes"))),
            **settings,
        )


def learn(lesson: Lesson) -> Outcome:
    """Train the student in place, together with the other processes of the group if there is one.

    Raises:
        ModelError: a node cannot run in torch.
        PassError: the loss is not finite, or the data do not fit.
    """
    how, device = lesson.how, training_device()
    values = [*lesson.outputs, *how.hidden]
    module = Trainable(lesson.student, values, lesson.weights).to(device)
    batches, axes, objective = lesson.batches, lesson.axes, Objective(probabilities=lesson.probabilities)
    if lesson.distillation is not None:
        teacher = Trainable(lesson.teacher, values).to(device).eval()
        batches, axes = taught(batches, teacher, device, axes)
        objective = Objective(
            teacher,
            len(lesson.outputs),
            lesson.distillation,
            how.temperature,
            how.distill_share,
            lesson.probabilities,
        )
    examples, held_out = Examples(batches, how.batch_size, how.seed, axes).split(how.held_out)
    with _progress(how.epochs, len(examples)) as report:
        outcome = train(module, module.trained_weights(), objective, examples, held_out, how, report)
    module.write_back(lesson.student)
    return outcome


def training_device() -> torch.device:
    """Return where training runs: this process's GPU, or the CPU."""
    place = os.environ.get("LOCAL_RANK", "0")
    return torch.device(f"cuda:{place}" if torch.cuda.is_available() else "cpu")


@contextmanager
def _progress(epochs: int, steps: int) -> Iterator[Report]:
    """Show a bar with loss and held-out score on stderr; nothing where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task("training", total=epochs * steps)

        def report(epoch: int, step: int, loss: float, score: float | None) -> None:
            held_out = "" if score is None else f", held out {abs(score):.4g}"
            text = f"epoch {epoch + 1}/{epochs}, loss {loss:.4g}{held_out}"
            bar.update(task, completed=epoch * steps + step + 1, description=text)

        yield report
