"""The training loop: examples, objective, schedule, early stop, checkpoints, several processes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.distributed as distributed

# Its functions have the process group of the moment of their import as a default argument. The first
# optimizer would import it when the group exists; the group would then outlive its destruction, and its
# threads would abort the exit of the interpreter.
import torch.distributed.nn
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import PassError
from compress.graph.trainable import Trainable

if TYPE_CHECKING:
    from compress.model import Model

Distillation = Literal["mse", "kl"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Input tensors by name, and labels if there are any."""

    feeds: dict[str, Tensor]
    labels: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return Batch({name: tensor.to(device) for name, tensor in self.feeds.items()}, labels)

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the batch."""
        return [*self.feeds.values(), *([] if self.labels is None else [self.labels])]

    def chosen(self, samples: Tensor) -> Batch:
        """Return some samples."""
        labels = None if self.labels is None else self.labels[samples]
        return Batch({name: tensor[samples] for name, tensor in self.feeds.items()}, labels)


@dataclass(frozen=True)
class Examples:
    """Training data in memory, in an order that depends on seed and epoch alone.

    Attributes:
        batches: the data as they came.
        batch_size: samples of a step, drawn from all batches; 0 takes the batches as they are.
        seed: what the order derives from.
    """

    batches: list[Batch]
    batch_size: int = 0
    seed: int = 0

    def split(self, held_out: float) -> tuple[Examples, Examples]:
        """Return what to train on and what to judge by; a fraction of the batches, or samples, at the end."""
        count = math.floor(len(self.batches) * held_out)
        if self.batch_size:
            pool = _joined(self.batches)
            count = math.floor(len(pool) * held_out)
            order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(self.seed))
            train, judge = order[: len(pool) - count], order[len(pool) - count :]
            parts = [[pool.chosen(train)], [pool.chosen(judge)] if count else []]
        else:
            parts = [self.batches[: len(self.batches) - count], self.batches[len(self.batches) - count :]]
        first, second = (Examples(part, self.batch_size, self.seed) for part in parts)
        return first, second

    def __len__(self) -> int:
        """Steps of an epoch in one process."""
        if not self.batch_size:
            return len(self.batches)
        return max(sum(len(batch) for batch in self.batches) // self.batch_size, 1)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, shuffled; a last one that is not full is left out."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        if not self.batch_size:
            for place in torch.randperm(len(self.batches), generator=generator).tolist():
                yield self.batches[place]
            return
        pool = _joined(self.batches)
        order = torch.randperm(len(pool), generator=generator)
        for samples in torch.split(order, self.batch_size)[: len(self)]:
            yield pool.chosen(samples)

    def in_order(self) -> Iterator[Batch]:
        """Yield all batches as they come, none left out."""
        for batch in self.batches:
            for samples in torch.split(torch.arange(len(batch)), self.batch_size or len(batch)):
                yield batch.chosen(samples)


def _joined(batches: list[Batch]) -> Batch:
    """Return one batch of all samples.

    Raises:
        PassError: the batches differ in more than their number of samples.
    """
    if len(batches) == 1:
        return batches[0]
    if len({tuple(tensor.shape[1:] for tensor in batch.tensors()) for batch in batches}) > 1:
        raise PassError("batch_size needs batches of one shape; leave it out to train on them as they are")
    labels = [batch.labels for batch in batches if batch.labels is not None]
    feeds = {name: torch.cat([batch.feeds[name] for batch in batches]) for name in batches[0].feeds}
    return Batch(feeds, torch.cat(labels) if labels else None)


@dataclass(frozen=True)
class Objective:
    """What training makes small: the loss on labels, the distance from a teacher, or a mix.

    Attributes:
        teacher: returns the outputs to imitate, then the hidden values; None trains on labels alone.
        outputs: how many of the results are outputs of the model.
        distillation: "mse" compares each output, relative to its power; "kl" the classes of the first
            output, softened by the temperature (Hinton et al., "Distilling the knowledge in a neural
            network", 2015).
        share: what part of the loss distillation has where there are labels too.
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
            return self._label_loss(results[0], _labels(batch))
        with torch.no_grad():
            targets = self.teacher(batch.feeds)
        loss = self._distance(results, targets)
        if batch.labels is None:
            return loss
        return self.share * loss + (1 - self.share) * self._label_loss(results[0], batch.labels)

    def _label_loss(self, result: Tensor, labels: Tensor) -> Tensor:
        return label_loss(result if labels.is_floating_point() else self._scores(result), labels)

    def _scores(self, result: Tensor) -> Tensor:
        """Return what a softmax turns into the classes' probabilities."""
        return result.clamp(min=1e-12).log() if self.probabilities else result

    def _distance(self, results: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        first = 0 if self.distillation == "mse" else self.outputs
        loss = torch.zeros((), device=results[0].device)
        names = self.teacher.output_names if self.teacher else ()
        for name, result, target in list(zip(names, results, targets, strict=True))[first:]:
            if result.shape != target.shape:
                raise PassError(
                    f"{name!r} is {list(target.shape)} in the original and {list(result.shape)} now; "
                    "distil values whose size pruning did not change"
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
    """Return the Kullback-Leibler divergence of softened classes, times the temperature squared."""
    axis = 1 if scores.dim() > 3 else -1
    student = F.log_softmax(scores.float() / temperature, axis)
    teacher = F.log_softmax(target.float() / temperature, axis)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(axis)
    return divergence.mean() * temperature**2


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise PassError(
            "the calibration data have no labels: give (inputs, labels) batches, or distill: true"
        )
    return batch.labels


def label_loss(result: Tensor, labels: Tensor) -> Tensor:
    """Return cross entropy for whole-numbered labels, mean squared error for others.

    Classes lie on the axis of `result` that the labels do not have: the last, or the second.

    Raises:
        PassError: the shapes do not fit.
    """
    if labels.is_floating_point():
        if labels.shape != result.shape:
            raise PassError(f"labels of shape {list(labels.shape)} do not fit output {list(result.shape)}")
        return F.mse_loss(result.float(), labels.float())
    return F.cross_entropy(_classes_second(result, labels).float(), labels.long())


def accuracy(result: Tensor, labels: Tensor) -> float:
    """Return the part of whole-numbered labels that has the highest score."""
    return float((_classes_second(result, labels).argmax(1) == labels).float().mean())


def _classes_second(result: Tensor, labels: Tensor) -> Tensor:
    if result.shape[:-1] == labels.shape:
        return result.movedim(-1, 1) if result.dim() > 2 else result
    if result.dim() > 2 and result.shape[:1] + result.shape[2:] == labels.shape:
        return result
    raise PassError(f"labels of shape {list(labels.shape)} do not fit output {list(result.shape)}")


def gives_probabilities(model: Model) -> bool:
    """Tell from the first batch whether the first output has been through a softmax, in one node or many."""
    scores = model.run(next(model.batches()))[0]
    if scores.ndim < 2 or scores.dtype.kind != "f":
        return False
    sums = scores.sum(axis=1 if scores.ndim > 3 else -1, dtype=np.float64)
    return bool(scores.min() >= 0 and np.abs(sums - 1).max() < 1e-3)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train.

    Attributes:
        epochs: how often the examples are seen.
        optimizer: makes the optimizer of groups of parameters.
        warmup: part of all steps over which the learning rate rises; then it falls as a cosine.
        patience: epochs without improvement on held-out examples before training stops; 0 never does.
        judge: "loss" or "accuracy", what improves.
        seed: dropout and order derive from it.
        mixed: whether matrix products run in bfloat16.
        keep_zeros: whether zeros in matrices and kernels stay zero.
        checkpoint: file to resume from, written after every epoch.
        settings: what else tells this training from another; a checkpoint remembers it.
    """

    epochs: int
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    warmup: float = 0.05
    patience: int = 0
    judge: Literal["loss", "accuracy"] = "loss"
    seed: int = 0
    mixed: bool = False
    keep_zeros: bool = True
    checkpoint: Path | None = None
    settings: str = ""


@dataclass
class Outcome:
    """What training came to."""

    epochs: int = 0
    losses: list[float] = field(default_factory=list)
    """Mean training loss of each epoch."""
    scores: list[float] = field(default_factory=list)
    """Loss (or minus the accuracy) on held-out examples after each epoch; the smallest is kept."""


Report = Callable[[int, int, float, float | None], None]
"""Called after each step with epoch, step, loss and the last held-out score."""


def train(
    module: nn.Module,
    weights: dict[str, nn.Parameter],
    objective: Objective,
    examples: Examples,
    held_out: Examples,
    plan: Plan,
    report: Report,
) -> Outcome:
    """Train `weights` of a module in place and leave the best of them, by held-out examples, there.

    The result depends on seed and data alone. In a process group of `torch.distributed` every process
    takes its share of the batches and all end with the same weights.

    Args:
        module: called with a mapping of input tensors, returns a tuple of tensors.
        weights: the parameters to train, by name.

    Raises:
        PassError: the loss is no longer finite, or the checkpoint is of another training.
    """
    run = _Run(module, weights, objective, examples, held_out, plan)
    with torch.random.fork_rng(devices=[]):
        run.resume()
        while run.outcome.epochs < plan.epochs and not run.stalled:
            run.epoch(report)
            run.save()
    run.finish()
    return run.outcome


class _Run:
    """The state of one training: what a checkpoint holds and what an epoch moves on."""

    def __init__(
        self,
        module: nn.Module,
        weights: dict[str, nn.Parameter],
        objective: Objective,
        examples: Examples,
        held_out: Examples,
        plan: Plan,
    ) -> None:
        self.module, self.weights, self.objective = module, weights, objective
        self.examples, self.held_out, self.plan = examples, held_out, plan
        self.device = next(iter(weights.values())).device
        self.rank, self.processes = _place()
        self.steps = len(examples) // self.processes
        if not self.steps:
            raise PassError(f"{len(examples)} batches are too few for {self.processes} processes")
        # Decay is for matrices and kernels: on biases and norm scales it only hurts.
        many = [weight for weight in weights.values() if weight.dim() > 1]
        few = [weight for weight in weights.values() if weight.dim() <= 1]
        self.optimizer = plan.optimizer([{"params": many}, {"params": few, "weight_decay": 0.0}])
        # A zero with a gradient of zero stays one: decay, momentum and Adam's step are all zero.
        self.alive = [(weight, weight.detach() != 0) for weight in many if plan.keep_zeros]
        total = plan.epochs * self.steps
        warm = math.ceil(plan.warmup * total)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _rate(step, warm, total)
        )
        self.outcome = Outcome()
        self.best: dict[str, Tensor] | None = None
        self.key = _fingerprint(module, plan) if plan.checkpoint else ""
        if self.processes > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)

    @property
    def stalled(self) -> bool:
        """Whether the last epochs brought no improvement."""
        scores, patience = self.outcome.scores, self.plan.patience
        return bool(
            patience and len(scores) > patience and min(scores[:-patience]) <= min(scores[-patience:])
        )

    def epoch(self, report: Report) -> None:
        """Train one epoch, judge it and remember the weights if they are the best so far."""
        number = self.outcome.epochs
        torch.manual_seed(self.plan.seed * 100_003 + number)
        self.module.train()
        losses = []
        score = self.outcome.scores[-1] if self.outcome.scores else None
        for step, batch in enumerate(self._share(self.examples.epoch(number))):
            losses.append(self._step(batch.to(self.device), f"epoch {number + 1}, step {step + 1}"))
            report(number, step, losses[-1], score)
        self._average([buffer for buffer in self.module.buffers() if buffer.is_floating_point()])
        self.outcome.epochs += 1
        self.outcome.losses.append(self._agreed(sum(losses) / len(losses)))
        if self.held_out.batches:
            self.outcome.scores.append(self._judge())
            if self.outcome.scores[-1] == min(self.outcome.scores):
                self.best = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}

    def _share(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield this process's batches; what does not go round is left out of the epoch."""
        for place, batch in enumerate(batches):
            if place % self.processes == self.rank and place < self.steps * self.processes:
                yield batch

    def _step(self, batch: Batch, where: str) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            loss = self.objective(self.module(batch.feeds), batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise PassError(f"{where}: the loss is {value}; lower learning_rate")
        torch.autograd.backward(loss)
        self._average([weight.grad for weight in self.weights.values() if weight.grad is not None])
        for weight, alive in self.alive:
            if weight.grad is not None:
                weight.grad *= alive
        self.optimizer.step()
        self.schedule.step()
        return value

    def _judge(self) -> float:
        """Return the score of the held-out examples; smaller is better."""
        self.module.eval()
        total, count = 0.0, 0
        with torch.no_grad(), self._precision():
            for part in self.held_out.in_order():
                batch = part.to(self.device)
                results = self.module(batch.feeds)
                if self.plan.judge == "accuracy":
                    score = -accuracy(results[0], _labels(batch))
                else:
                    score = float(self.objective(results, batch))
                total, count = total + score * len(batch), count + len(batch)
        return self._agreed(total / count)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.mixed)

    def _average(self, tensors: list[Tensor]) -> None:
        """Make tensors the mean over all processes."""
        if self.processes > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)
                tensor /= self.processes

    def _agreed(self, value: float) -> float:
        """Return a number's mean over all processes, so that they decide alike."""
        mean = torch.tensor(value, dtype=torch.float64, device=self.device)
        self._average([mean])
        return mean.item()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        path = self.plan.checkpoint
        if path is None or self.rank:
            return
        state = {
            "key": self.key,
            "module": self.module.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.last_epoch,
            "outcome": [self.outcome.epochs, self.outcome.losses, self.outcome.scores],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        path = self.plan.checkpoint
        if path is None or not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["key"] != self.key:
            raise PassError(f"{path}: is the checkpoint of another training; delete it or name another")
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]
        self.best = state["best"]
        self.outcome = Outcome(*state["outcome"])

    def finish(self) -> None:
        """Put the best weights in place and remove the checkpoint."""
        if self.best is not None:
            self.module.load_state_dict(self.best)
        self.module.eval()
        if self.plan.checkpoint is not None and not self.rank:
            self.plan.checkpoint.unlink(missing_ok=True)


def _place() -> tuple[int, int]:
    """Return this process's number and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _rate(step: int, warm: int, total: int) -> float:
    """Return the part of the learning rate at a step: up in a line, down as half a cosine."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def _fingerprint(module: nn.Module, plan: Plan) -> str:
    """Return what tells one training from another: where it starts and how long it runs."""
    digest = hashlib.sha256(f"{plan.settings} {plan.epochs} {plan.seed} {plan.warmup}".encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
