"""The training loss: on labels, as the distance from a teacher, or as a mix of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import PassError
from compress.train.examples import Batch
from compress.trainable.module import Trainable

if TYPE_CHECKING:
    from compress.model import Model

Distillation = Literal["mse", "kl"]


@dataclass(frozen=True)
class Objective:
    """The training loss: on labels, as the distance from a teacher, or as a mix of both.

    Attributes:
        teacher: returns the outputs to imitate, then the hidden values; None trains on labels alone.
        outputs: how many of the results are outputs of the model.
        distillation: "mse" compares each output, relative to its power; "kl" compares the class
            probabilities of the first output, softened by the temperature (Hinton et al., "Distilling the
            knowledge in a neural network", 2015).
        temperature: divides the scores of the classes that "kl" compares.
        share: share of distillation in the loss where there are labels too.
        probabilities: whether the first output has gone through a softmax.
    """

    teacher: Trainable | None = None
    outputs: int = 1
    distillation: Distillation = "mse"
    temperature: float = 2.0
    share: float = 0.5
    probabilities: bool = False

    def __call__(self, results: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        if self.teacher is None:
            return self._label_loss(results[0], labels_of(batch))
        with torch.no_grad():
            targets = batch.targets or self.teacher(batch.feeds)
        loss = self._distance(results, targets)
        if batch.labels is None:
            return loss
        return self.share * loss + (1 - self.share) * self._label_loss(results[0], batch.labels)

    def _label_loss(self, result: Tensor, labels: Tensor) -> Tensor:
        return label_loss(result if labels.is_floating_point() else self._scores(result), labels)

    def _scores(self, result: Tensor) -> Tensor:
        """Return scores whose softmax gives the class probabilities."""
        return result.clamp(min=1e-12).log() if self.probabilities else result

    def _distance(self, results: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        first = 0 if self.distillation == "mse" else self.outputs
        loss = torch.zeros((), device=results[0].device)
        names = self.teacher.output_names if self.teacher else ()
        for name, result, target in list(zip(names, results, targets, strict=True))[first:]:
            if result.shape != target.shape:
                raise PassError(
                    f"{name!r} is {list(target.shape)} in the original and {list(result.shape)} now; "
                    "distil only values whose size pruning did not change"
                )
            if target.is_floating_point():
                loss = loss + relative_error(result, target)
        if self.distillation == "kl":
            scores, wanted = self._scores(results[0]), self._scores(targets[0])
            loss = loss + soft_divergence(scores, wanted, self.temperature)
        return loss


def relative_error(result: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over the target's mean square: noise over signal."""
    power = target.float().square().mean().clamp(min=1e-12)
    return (result.float() - target.float()).square().mean() / power


def soft_divergence(scores: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the Kullback-Leibler divergence of softened classes, times the squared temperature."""
    axis = 1 if scores.dim() > 3 else -1
    student = F.log_softmax(scores.float() / temperature, axis)
    teacher = F.log_softmax(target.float() / temperature, axis)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(axis)
    return divergence.mean() * temperature**2


def labels_of(batch: Batch) -> Tensor:
    """Return the labels of a batch.

    Raises:
        PassError: there are none.
    """
    if batch.labels is None:
        raise PassError(
            "the calibration data have no labels: give (inputs, labels) batches, or distill: true"
        )
    return batch.labels


PADDING = -1
"""Label, and with it all below it, that marks what is left out."""


def label_loss(result: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy for integer labels, the mean squared error for floating-point ones.

    Integers below zero are left out, as `perplexity` leaves them out: they mark padding.
    The classes are on the axis of `result` that the labels lack: the last or the second.

    Raises:
        PassError: the shapes do not fit, or a label is beyond the classes.
    """
    if labels.is_floating_point():
        if labels.shape != result.shape:
            raise PassError(f"labels of shape {list(labels.shape)} do not fit output {list(result.shape)}")
        return F.mse_loss(result.float(), labels.float())
    scores = _classes_second(result, labels)
    classes = scores.shape[1]
    if (labels >= classes).any():
        raise PassError(f"label {int(labels.max())} is none of the {classes} classes, 0 to {classes - 1}")
    counted = (labels >= 0).sum().clamp(min=1)
    wanted = labels.long().clamp(min=PADDING)
    return F.cross_entropy(scores.float(), wanted, ignore_index=PADDING, reduction="sum") / counted


def accuracy(result: Tensor, labels: Tensor) -> float:
    """Return the fraction of integer labels, but for those below zero, whose class has the highest score."""
    right = (_classes_second(result, labels).argmax(1) == labels)[labels >= 0]
    return float(right.float().mean()) if right.numel() else 0.0


def _classes_second(result: Tensor, labels: Tensor) -> Tensor:
    if result.shape[:-1] == labels.shape:
        return result.movedim(-1, 1) if result.dim() > 2 else result
    if result.dim() > 2 and result.shape[:1] + result.shape[2:] == labels.shape:
        return result
    raise PassError(f"labels of shape {list(labels.shape)} do not fit output {list(result.shape)}")


def gives_probabilities(model: Model) -> bool:
    """Tell from the first batch whether the first output has been through a softmax, in one node or many."""
    scores = model.copy().run(next(model.batches()))[
        0
    ]  # a session of its own, because the graph may still change
    if scores.ndim < 2 or scores.dtype.kind != "f":
        return False
    sums = scores.sum(axis=1 if scores.ndim > 3 else -1, dtype=np.float64)
    return bool(scores.min() >= 0 and np.abs(sums - 1).max() < 1e-3)
