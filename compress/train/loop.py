"""The training loop: schedule, early stop, checkpoints, several processes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed

# At import, its functions take the current process group as a default argument. The first optimizer would
# import it while a group exists. That group would then outlive its destruction, and its threads would abort
# the exit of the interpreter.
import torch.distributed.nn
from torch import Tensor, nn

from compress.errors import PassError
from compress.train.examples import Batch, Examples
from compress.train.objective import Objective, accuracy, labels_of
from compress.train.settings import ResolvedTraining


@dataclass
class Outcome:
    """What a training achieved."""

    epochs: int = 0
    losses: list[float] = field(default_factory=list)
    """Mean training loss of each epoch."""
    scores: list[float] = field(default_factory=list)
    """Loss (or minus the accuracy) on held-out examples before training and after each epoch."""

    @property
    def kept(self) -> int:
        """The epoch whose weights are kept: the best on held-out examples, or the last one without such."""
        return self.scores.index(min(self.scores)) if self.scores else self.epochs

    def story(self) -> str:
        """Describe the training in words, for a change."""
        kept = "" if self.kept == self.epochs else f", epoch {self.kept} kept"
        return f"trained {self.epochs} epochs, loss {self.losses[0]:.3g} to {self.losses[-1]:.3g}{kept}"


Report = Callable[[int, int, float, float | None], None]
"""Called after each step with epoch, step, loss and the last held-out score."""


def train(
    module: nn.Module,
    weights: dict[str, nn.Parameter],
    objective: Objective,
    examples: Examples,
    held_out: Examples,
    how: ResolvedTraining,
    report: Report,
) -> Outcome:
    """Train `weights` of a module in place, and keep those of the epoch that did best on held-out examples.

    The result depends on settings and data alone. In a process group of `torch.distributed` every process
    takes its share of the batches and all end with the same weights.

    Args:
        module: called with a mapping of input tensors, returns a tuple of tensors.
        weights: the parameters to train, by name.
        objective: the loss.
        examples: what is trained on.
        held_out: what decides which epoch's weights are kept; if empty, the last one's are.
        how: the settings.
        report: called after each step.

    Raises:
        PassError: the loss is no longer finite, or the checkpoint is of another training.
    """
    run = _Run(module, weights, objective, examples, held_out, how)
    with torch.random.fork_rng(devices=[]):
        run.resume()
        run.judge()
        while run.outcome.epochs < how.epochs and not run.stalled:
            run.epoch(report)
            run.save()
    run.finish()
    return run.outcome


class _Run:
    """The state of one training, which a checkpoint holds and each epoch advances."""

    def __init__(
        self,
        module: nn.Module,
        weights: dict[str, nn.Parameter],
        objective: Objective,
        examples: Examples,
        held_out: Examples,
        how: ResolvedTraining,
    ) -> None:
        self.module, self.weights, self.objective = module, weights, objective
        self.examples, self.held_out, self.how = examples, held_out, how
        self.device = next(iter(weights.values())).device
        self.rank, self.processes = _place()
        self.steps = len(examples) // self.processes
        if not self.steps:
            raise PassError(f"{len(examples)} batches are too few for {self.processes} processes")
        self.optimizer = optimizer(weights.values(), how)
        # A zero weight whose gradients are set to zero stays zero: decay, momentum and Adam's step vanish.
        many = [weight for weight in weights.values() if weight.dim() > 1 and how.keep_zeros]
        self.alive = [(weight, weight.detach() != 0) for weight in many]
        self.checkpoint = Path(how.checkpoint) if how.checkpoint else None
        total = how.epochs * self.steps
        warm = math.ceil(how.warmup * total)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _rate(step, warm, total)
        )
        self.outcome = Outcome()
        self.best: dict[str, Tensor] | None = None
        self.key = _fingerprint(module, how) if how.checkpoint else ""
        if self.processes > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)

    @property
    def stalled(self) -> bool:
        """Whether the last epochs brought no improvement."""
        scores, patience = self.outcome.scores[1:], self.how.patience
        return bool(
            patience and len(scores) > patience and min(scores[:-patience]) <= min(scores[-patience:])
        )

    def epoch(self, report: Report) -> None:
        """Train one epoch, and score the weights."""
        number = self.outcome.epochs
        torch.manual_seed(self.how.seed * 100_003 + number)
        self.module.train()
        losses = []
        score = self.outcome.scores[-1] if self.outcome.scores else None
        for step, batch in enumerate(self._share(self.examples.epoch(number))):
            losses.append(self._step(batch.to(self.device), f"epoch {number + 1}, step {step + 1}"))
            report(number, step, losses[-1], score)
        self._average([buffer for buffer in self.module.buffers() if buffer.is_floating_point()])
        self.outcome.epochs += 1
        self.outcome.losses.append(self._agreed(sum(losses) / len(losses)))
        self.judge()

    def judge(self) -> None:
        """Score the weights, before the first epoch and after each; copy them if they are the best so far."""
        if self.held_out.batches and len(self.outcome.scores) == self.outcome.epochs:
            self.outcome.scores.append(self._score())
            if self.outcome.scores[-1] == min(self.outcome.scores):
                self.best = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}

    def _share(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches of this process; a remainder that is too small for all processes is left out."""
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

    def _score(self) -> float:
        """Return the score of the held-out examples; smaller is better."""
        self.module.eval()
        total, count = 0.0, 0
        with torch.no_grad(), self._precision():
            for part in self.held_out.in_order():
                batch = part.to(self.device)
                results = self.module(batch.feeds)
                if self.how.stop_on == "accuracy":
                    score = -accuracy(results[0], labels_of(batch))
                else:
                    score = float(self.objective(results, batch))
                size = self.held_out.size(part)
                total, count = total + score * size, count + size
        return self._agreed(total / count)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        mixed = self.how.mixed_precision and torch.amp.is_autocast_available(self.device.type)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

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
        """Write the checkpoint atomically."""
        path = self.checkpoint
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
        path = self.checkpoint
        if path is None or not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["key"] != self.key:
            raise PassError(
                f"{path} is the checkpoint of another training; delete it, or set checkpoint to another file"
            )
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
        if self.checkpoint is not None and not self.rank:
            self.checkpoint.unlink(missing_ok=True)


def optimizer(weights: Iterable[nn.Parameter], how: ResolvedTraining) -> torch.optim.Optimizer:
    """Return the optimizer; weight decay acts on matrices and kernels only, for it harms biases and norms."""
    many: list[nn.Parameter] = []
    few: list[nn.Parameter] = []
    for weight in weights:
        (many if weight.dim() > 1 else few).append(weight)
    groups: list[dict[str, Any]] = [{"params": many}, {"params": few, "weight_decay": 0.0}]
    rate, decay = how.learning_rate, how.weight_decay
    if how.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
    return torch.optim.SGD(groups, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)


def _place() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _rate(step: int, warm: int, total: int) -> float:
    """Return the factor on the learning rate at a step: a linear rise, then half a cosine down to zero."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def _fingerprint(module: nn.Module, how: ResolvedTraining) -> str:
    """Return what tells one training from another: its settings and the weights that it starts from."""
    digest = hashlib.sha256(how.model_dump_json().encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
