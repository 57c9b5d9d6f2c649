"""Further training of whatever is left of a model."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from compress.changes import Change
from compress.errors import PassError
from compress.passes.base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from compress.model import Model
    from compress.train.examples import Batch
    from compress.train.loop import Outcome, Plan, Report
    from compress.train.objective import Distillation, Objective
    from compress.trainable.module import Trainable

AUTO_SAMPLES = 32
"""Samples of a step, where nobody says how many."""


class Finetune(Pass, name="finetune"):
    """Train the weights further: on labels, to imitate the original, or both.

    This is what brings accuracy back after pruning, sparsity, low rank or palettes, whose entries it
    trains; integers stay as they are, and what is left of float learns. It needs a few hundred
    examples or more and the time to run them forwards and backwards through the graph. Labels come
    with the calibration data as ``(inputs, labels)``; the original's outputs teach as well, or alone
    where there are no labels. Too high a learning rate destroys what was learnt; what is kept is what
    does best on held-out data, before training or after any epoch. Control flow and operators that
    torch has no function for are refused.

    Example: ``finetune: {epochs: 20, distill: kl, learning_rate: 0.001}``
    """

    needs_float: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = True
    auto_rate: ClassVar[float] = 1e-3
    """The learning rate where nobody says one, for networks without attention; with it, a tenth."""

    epochs: int = Field(default=10, ge=1)
    """How often the calibration data are gone through."""
    batch_size: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Samples of a training step, drawn anew from all batches each epoch; 0 takes batches as they come; auto
    draws 32 where the model takes any number of rows, and no row knows of the others."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """The highest; it rises to it during the warm-up and falls to zero as a cosine; auto is 0.001, and 0.0001
    for networks with attention."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """sgd has a Nesterov momentum of 0.9."""
    weight_decay: float = Field(default=0.01, ge=0)
    """On matrices and kernels only."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Part of all steps over which the learning rate rises."""
    distill: bool | Literal["auto", "mse", "kl"] = "auto"
    """Imitate the original: mse compares all outputs and is what true means, kl the classes of the first;
    auto does so if there are no labels, or if earlier passes changed the model."""
    distill_share: float = Field(default=0.5, gt=0, le=1)
    """Part of the loss that distillation has where there are labels; 1 ignores the labels."""
    temperature: float = Field(default=2.0, gt=0)
    """Softens the classes that kl compares."""
    hidden: tuple[str, ...] = ()
    """Values inside the graph that are to stay like the original's, by name; needs distill."""
    keep_zeros: bool = True
    """Whether zeros in matrices and kernels stay zero, so that sparsity survives."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Part of the data not trained on; the weights that do best on it are kept."""
    patience: int = Field(default=0, ge=0)
    """Epochs without improvement on held-out data after which training stops; 0 never stops early."""
    stop_on: Literal["loss", "accuracy"] = "loss"
    """What must improve on the held-out data."""
    mixed_precision: bool = False
    """Matrix products in bfloat16, where the device has it."""
    seed: int = Field(default=0, ge=0)
    """Order of the data and dropout derive from it."""
    checkpoint: str = ""
    """A file written after each epoch; a training that was killed goes on from it."""
    processes: int = Field(default=1, ge=1)
    """Processes that share each epoch, on a GPU each where there are some; a step sees the batches of all.
    For several machines, start a script by torchrun that makes the process group and applies the pass."""

    def __call__(self, model: Model) -> Model:
        """Return a trained copy of `model`, with the help of further processes if `processes` asks for them.

        In a script that ``torchrun`` started, make the process group first and call the pass in every
        process: each takes its share of the batches, and all return the same model.

        Raises:
            PassError: there is nothing to learn from, the loss is not finite, or a process failed.
        """
        import torch.distributed

        if self.processes == 1 or torch.distributed.is_initialized():
            return super().__call__(model)
        from compress.processes import group

        batches = [(batch.feeds, batch.labels) for batch in self._batches(model)]
        with group(self, model, batches, self.processes):
            return super().__call__(model)

    def apply(self, model: Model) -> list[Change]:
        """Train the weights that `include` and `exclude` choose, and write them back."""
        from compress.trainable.module import Trainable

        module = Trainable(model.ir, [*output_names(model), *self.hidden]).to(training_device())
        chosen = self._chosen(model, module)
        if not chosen:
            return [Change(name, skipped="excluded") for name in module.trained_weights()]
        before = {name: weight.detach().clone() for name, weight in chosen.items()}
        outcome = self.fit(model, module, chosen)
        module.write_back(model.ir)
        if not outcome.kept:
            reason = f"none of {outcome.epochs} epochs did better on held-out data; lower learning_rate"
            return [Change(name, skipped=reason) for name in chosen]
        changes = [
            Change(name, outcome.story(), weight.nbytes, weight.nbytes, _moved(before[name], weight))
            for name, weight in chosen.items()
        ]
        left = module.trained_weights().keys() - chosen.keys()
        return changes + [Change(name, skipped="excluded") for name in sorted(left)]

    def fit(self, model: Model, module: Trainable, chosen: dict[str, torch.nn.Parameter]) -> Outcome:
        """Train parameters of a module that computes the model's outputs and hidden values.

        Raises:
            DataError: there are no calibration data.
            PassError: there is nothing to learn from, or the loss is not finite.
        """
        from compress.train.examples import Examples, taught
        from compress.train.loop import train

        batches = list(self._batches(model))
        samples = self._samples(model, batches)
        objective = self._objective(model, labelled=batches[0].labels is not None)
        if objective.teacher is not None:
            batches = taught(batches, objective.teacher, training_device())
        examples = Examples(batches, samples, self.seed)
        examples, held_out = examples.split(self.held_out)
        with _progress(self.epochs, len(examples)) as report:
            return train(module, chosen, objective, examples, held_out, self._plan(model), report)

    def _samples(self, model: Model, batches: list[Batch]) -> int:
        """Return how many samples a step has; 0 where batches must stay as they came."""
        from compress.train.examples import can_shuffle

        if self.batch_size == 0:
            return 0
        mixable = can_shuffle(batches)
        if self.batch_size != "auto":
            if not mixable:
                raise PassError("finetune: batch_size needs batches of one shape; 0 takes them as they are")
            return self.batch_size
        first = [value.shape[0] for value in model.graph.inputs if value.shape is not None and value.shape]
        fixed = any(isinstance(size, int) for size in first)
        return AUTO_SAMPLES if mixable and not fixed and _rows_are_samples(model.original, batches) else 0

    def _imitation(self, model: Model, *, labelled: bool) -> Distillation | None:
        """Return how the original is imitated, if it is."""
        if self.distill == "auto":
            changed = self.quantizes or any(change.action for change in model.changes)
            if not (changed or labelled):
                raise PassError(
                    "finetune: the data have no labels, and no pass has changed the model: nothing to learn"
                )
            return "mse" if changed or self.hidden or not labelled else None
        return "mse" if self.distill is True else self.distill or None

    def _chosen(self, model: Model, module: Trainable) -> dict[str, torch.nn.Parameter]:
        """Return the parameters to train; the others stop asking for gradients."""
        chosen = {}
        for name, weight in module.trained_weights().items():
            readers = [use.node.name for use in model.graph.initializers[name].uses()]
            if self.selects(name, *readers):
                chosen[name] = weight
            else:
                weight.requires_grad_(False)
        return chosen

    def _batches(self, model: Model) -> Iterator[Batch]:
        import numpy as np
        import torch

        from compress.errors import DataError
        from compress.train.examples import Batch

        if model.calibration is None:
            raise DataError("finetune needs calibration data, and the model came without")
        ignored = self.distill is not False and self.distill_share == 1
        for feeds, labels in model.calibration.batches(model.graph.inputs):
            tensors = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
            if labels is None or ignored:
                yield Batch(tensors)
                continue
            array = np.array(labels.detach().cpu() if hasattr(labels, "detach") else labels)
            if array.dtype.kind not in "biuf":
                raise DataError(
                    "finetune: the labels are no numbers; distill: true with distill_share: 1 does without"
                )
            yield Batch(tensors, torch.from_numpy(array))

    def _objective(self, model: Model, *, labelled: bool) -> Objective:
        from compress.train.objective import Objective, gives_probabilities
        from compress.trainable.module import Trainable

        softmax = gives_probabilities(model.original)
        kind = self._imitation(model, labelled=labelled)
        if kind is None:
            if self.hidden:
                raise PassError("finetune: hidden values are compared with the original's: distill: true")
            return Objective(probabilities=softmax)
        names = output_names(model)
        teacher = Trainable(model.original.ir, [*names, *self.hidden]).to(training_device()).eval()
        return Objective(teacher, len(names), kind, self.temperature, self.distill_share, softmax)

    def _plan(self, model: Model) -> Plan:
        import torch

        from compress.train.loop import Plan

        rate = self.learning_rate
        if rate == "auto":
            rate = self.auto_rate / 10 if _attends(model.graph) else self.auto_rate
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
        if self.optimizer == "adamw":
            make = functools.partial(torch.optim.AdamW, lr=rate, weight_decay=self.weight_decay)
        else:
            make = functools.partial(
                torch.optim.SGD,
                lr=rate,
                weight_decay=self.weight_decay,
                momentum=0.9,
                nesterov=True,
            )
        return Plan(
            self.epochs,
            make,
            self.warmup,
            self.patience,
            self.stop_on,
            self.seed,
            self.mixed_precision and torch.amp.is_autocast_available(training_device().type),
            self.keep_zeros,
            Path(self.checkpoint) if self.checkpoint else None,
            repr(self),
        )


def _attends(graph: ir.Graph) -> bool:
    """Tell whether a network has attention: a softmax, and a product of two values that were computed."""
    from compress.graph.layers import layers_of

    operators = {node.op_type for node in graph}
    if operators & {"Attention", "MultiHeadAttention", "GroupQueryAttention"}:
        return True
    products = (node for node in graph if node.op_type in ("MatMul", "FusedMatMul"))
    return "Softmax" in operators and any(
        all(value is not None and value.producer() for value in node.inputs) and not list(layers_of(node))
        for node in products
    )


def _rows_are_samples(model: Model, batches: list[Batch]) -> bool:
    """Tell whether reversing the rows of the inputs reverses the results: none knows of the others."""
    import numpy as np
    import torch

    from compress.graph.session import RUNTIME_ERRORS

    first, second = batches[0].feeds, batches[-1].feeds
    rows = {name: torch.cat([first[name], second[name]])[: 2 * AUTO_SAMPLES].numpy() for name in first}
    count = len(next(iter(rows.values())))
    try:
        forward = model.run(rows)
        backward = model.run({name: array[::-1].copy() for name, array in rows.items()})
    except RUNTIME_ERRORS:
        return False  # the graph takes fewer rows than its input says
    return all(
        result.shape[:1] == (count,)
        and np.abs(result - mirrored[::-1]).max(initial=0) <= 0.01 * np.abs(result).max(initial=0)
        for result, mirrored in zip(forward, backward, strict=True)
    )


def output_names(model: Model) -> list[str]:
    """Return the names of a model's outputs."""
    return [value.name or "" for value in model.graph.outputs]


def training_device() -> torch.device:
    """Return where training runs: this process's GPU, or the CPU."""
    import torch

    place = os.environ.get("LOCAL_RANK", "0")
    return torch.device(f"cuda:{place}" if torch.cuda.is_available() else "cpu")


def _moved(before: torch.Tensor, after: torch.Tensor) -> float | None:
    """Return how far a weight went, relative to where it was; None if it was zero."""
    norm = float(before.norm())
    return float((after.detach() - before).norm()) / norm if norm else None


@contextmanager
def _progress(epochs: int, steps: int) -> Iterator[Report]:
    """Show a bar with loss and held-out score on stderr; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task("training", total=epochs * steps)

        def report(epoch: int, step: int, loss: float, score: float | None) -> None:
            held_out = "" if score is None else f", held out {abs(score):.4g}"
            text = f"epoch {epoch + 1}/{epochs}, loss {loss:.4g}{held_out}"
            bar.update(task, completed=epoch * steps + step + 1, description=text)

        yield report
