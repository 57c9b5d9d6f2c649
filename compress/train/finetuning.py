"""Further training of a graph: which weights are trained, on which loss, at which learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx_ir as ir
import torch

from compress.changes import Change, Reason
from compress.data import as_array
from compress.errors import DataError, PassError
from compress.graph import facts
from compress.graph.batch import NO_BATCH, BatchAxes, find
from compress.graph.layers import layers_of
from compress.model import Model
from compress.train.examples import Batch, can_shuffle
from compress.train.lesson import Lesson, learn
from compress.train.loop import Outcome
from compress.train.objective import Distillation, gives_probabilities
from compress.train.processes import group
from compress.train.settings import ResolvedTraining, Training
from compress.trainable.module import to_torch
from compress.trainable.roles import trained_initializers

AUTO_SAMPLES = 32
"""Samples of a step, if the setting is auto."""
AUTO_RATE = 1e-3
"""The learning rate of `finetune`, if the setting is auto."""


def finetune(model: Model, selects: Callable[..., bool], how: Training) -> list[Change]:
    """Train the weights of a model further, in place.

    Args:
        model: the model, with calibration data.
        selects: tells from the names of a weight and of the nodes that read it whether it is trained.
        how: the settings.

    Raises:
        DataError: there are no calibration data, or their labels are not numbers.
        ModelError: a node cannot run in torch.
        PassError: there are neither labels nor a teacher, the loss is not finite, or a process failed.
    """
    learnt, initializers = trained_initializers(model.ir), model.graph.initializers
    read = dict.fromkeys(
        value.name or "" for node in model.graph for value in node.inputs if value is not None
    )
    names = [name for name in read if name in learnt]
    chosen = [name for name in names if selects(name, *(use.node.name for use in initializers[name].uses()))]
    excluded = [Change(name, skipped=Reason.LEFT_OUT) for name in names if name not in chosen]
    if not chosen:
        return excluded
    before = {name: initializers[name].const_value for name in chosen}
    outcome = fit(model, model.ir, chosen, how, auto_rate=AUTO_RATE, changed=model.is_prepared)
    if not outcome.kept:
        story = f"none of {outcome.epochs} epochs did better on held-out data; lower learning_rate"
        reason = Reason.NO_GAIN.because(story)
        return [Change(name, skipped=reason) for name in chosen]
    changes = []
    for name, old in before.items():
        new = initializers[name].const_value
        assert old is not None and new is not None  # initializers that learn have content
        moved = _moved(to_torch(old), to_torch(new))
        changes.append(Change(name, outcome.story(), old.nbytes, new.nbytes, moved))
    return [*changes, *sorted(excluded, key=lambda change: change.layer)]


def fit(
    model: Model, student: ir.Model, weights: Iterable[str], how: Training, *, auto_rate: float, changed: bool
) -> Outcome:
    """Train a graph on the data of a model, in as many processes as the settings ask for.

    Args:
        model: the model with the calibration data; its original is the teacher.
        student: the graph that is trained in place, with the inputs and outputs of the model.
        weights: names of the student's initializers that are trained.
        how: the settings.
        auto_rate: the learning rate if the setting is auto; networks with attention take a tenth of it.
        changed: whether the student differs from the original.

    Raises:
        DataError: there are no calibration data, or their labels are not numbers.
        ModelError: a node cannot run in torch.
        PassError: there is nothing to learn from, the loss is not finite, or a process failed.
    """
    _require_trainable_outputs(model)
    batches = list(_batches(model, how))
    distillation = _distillation(how, labelled=batches[0].labels is not None, changed=changed)
    rate = how.learning_rate
    if rate == "auto":
        rate = auto_rate / 10 if attends(model.graph) else auto_rate
    axes = axes_of_samples(model, batches) if how.batch_size else NO_BATCH
    resolved = {"batch_size": samples_of_a_step(how, axes), "learning_rate": rate}
    lesson = Lesson(
        student=student,
        weights=tuple(weights),
        teacher=model.original.ir,
        outputs=tuple(value.name or "" for value in model.graph.outputs),
        batches=batches,
        distillation=distillation,
        probabilities=gives_probabilities(model.original),
        how=ResolvedTraining(**how.model_dump() | resolved),
        axes=axes,
    )
    if how.processes == 1 or torch.distributed.is_initialized():
        return learn(lesson)
    with group(lesson.save, how.processes):
        return learn(lesson)


def _require_trainable_outputs(model: Model) -> None:
    for value in model.graph.outputs:
        if not isinstance(value.type, ir.TensorType):
            raise PassError(f"cannot train: the output {value.name!r} is not a tensor")
    if not any(value.dtype is not None and value.dtype.is_floating_point() for value in model.graph.outputs):
        raise PassError(
            "cannot train: no output holds floating-point numbers, so that no loss has a gradient"
        )


def _batches(model: Model, how: Training) -> Iterator[Batch]:
    if model.calibration is None:
        raise DataError("finetune needs calibration data, and the model has none")
    ignored = how.distill is not False and how.distill_share == 1
    for feeds, labels in model.calibration.batches(model.graph.inputs):
        if not feeds:
            raise PassError("cannot train: the model has no inputs")
        for name, array in feeds.items():
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
                raise PassError(f"cannot train: the input {name!r} is no tensor of numbers")
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
        if labels is None or ignored:
            yield Batch(tensors)
            continue
        array = np.array(as_array(labels))
        if array.dtype.kind not in "biuf":
            raise DataError(
                "finetune: the labels are not numbers; distill: true with distill_share: 1 needs none"
            )
        yield Batch(tensors, torch.from_numpy(array if array.dtype.kind == "f" else array.astype(np.int64)))


def axes_of_samples(model: Model, batches: list[Batch]) -> BatchAxes:
    """Return where the samples of a batch lie, tried on the original; nothing where they cannot be mixed."""
    assert model.calibration is not None
    pair = [{name: tensor.numpy() for name, tensor in batches[at].feeds.items()} for at in (0, -1)]
    axes = find(model.original.run, model.graph.inputs, pair, model.calibration.batch_axis)
    return axes if can_shuffle(batches, axes) else NO_BATCH


def samples_of_a_step(how: Training, axes: BatchAxes) -> int:
    """Return how many samples a step has; 0 if the batches must be used as they are."""
    if how.batch_size == "auto":
        return AUTO_SAMPLES if axes.inputs else 0
    if how.batch_size and not axes.inputs:
        raise PassError(
            "finetune: batch_size needs batches of one shape, whose samples do not depend on one another or "
            "whose batch_axis is stated; 0 takes them as they are"
        )
    return how.batch_size


def _distillation(how: Training, *, labelled: bool, changed: bool) -> Distillation | None:
    """Return how the original is imitated, if it is."""
    if how.distill == "auto":
        if not (changed or labelled):
            raise PassError(
                "finetune: nothing to learn: the data have no labels, and no pass has changed the model"
            )
        return "mse" if changed or how.hidden or not labelled else None
    kind: Distillation | None = "mse" if how.distill is True else how.distill or None
    if kind is None and how.hidden:
        raise PassError("finetune: hidden values are compared with the original's, which needs distill: true")
    return kind


def attends(graph: ir.Graph) -> bool:
    """Tell whether a network has attention: a softmax, and a product of two values that were computed."""
    costs = {facts.of(node).cost for node in graph}
    if costs & {"attention", "projected attention"}:
        return True
    products = (node for node in graph if node.op_type in ("MatMul", "FusedMatMul"))
    return "softmax" in costs and any(
        all(value is not None and value.producer() for value in node.inputs) and not list(layers_of(node))
        for node in products
    )


def _moved(before: torch.Tensor, after: torch.Tensor) -> float | None:
    """Return the change of a weight relative to its former value; None if that was zero."""
    norm = float(before.norm())
    return float((after.detach() - before).norm()) / norm if norm else None
