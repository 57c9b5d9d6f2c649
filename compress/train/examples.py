"""Training data in memory: batches, their order, and the outputs of a teacher for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.trainable.module import Trainable

ROOM_BYTES = 1 << 30
"""Memory for the outputs of a teacher; if they take more, the teacher runs again at every step."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Input tensors by name, labels if there are any, and the teacher's outputs if they are kept."""

    feeds: dict[str, Tensor]
    labels: Tensor | None = None
    targets: tuple[Tensor, ...] = ()

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            {name: change(tensor) for name, tensor in self.feeds.items()},
            None if self.labels is None else change(self.labels),
            tuple(map(change, self.targets)),
        )

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def __len__(self) -> int:
        first = next(iter(self.feeds.values()))
        return len(first) if first.dim() else 1

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the batch."""
        return [*self.feeds.values(), *([] if self.labels is None else [self.labels]), *self.targets]

    def chosen(self, samples: Tensor) -> Batch:
        """Return some samples."""
        return self._each(lambda tensor: tensor[samples])


@dataclass(frozen=True)
class Examples:
    """Training data in memory, in an order that depends on seed and epoch alone.

    Attributes:
        batches: the data as they were given.
        batch_size: samples of a step, drawn from all batches; 0 takes the batches as they are.
        seed: seed of the order.
    """

    batches: list[Batch]
    batch_size: int = 0
    seed: int = 0

    def split(self, held_out: float) -> tuple[Examples, Examples]:
        """Return the training part and the held-out part, which is a fraction of the samples or batches."""
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
        """Yield the batches of an epoch, shuffled; a last batch that is not full is left out."""
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
        """Yield all batches in the given order, none left out."""
        for batch in self.batches:
            for samples in torch.split(torch.arange(len(batch)), self.batch_size or len(batch)):
                yield batch.chosen(samples)


def _joined(batches: list[Batch]) -> Batch:
    """Return one batch of all samples."""
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    feeds = {name: torch.cat([batch.feeds[name] for batch in batches]) for name in batches[0].feeds}
    targets = zip(*(batch.targets for batch in batches), strict=True)
    return Batch(feeds, torch.cat(labels) if labels else None, tuple(torch.cat(each) for each in targets))


def can_shuffle(batches: list[Batch]) -> bool:
    """Tell whether samples of different batches can be mixed: the rows of each tensor have one shape."""
    rows = all(tensor.shape[:1] == (len(batch),) for batch in batches for tensor in batch.tensors())
    return rows and len({tuple(tensor.shape[1:] for tensor in batch.tensors()) for batch in batches}) == 1


def taught(batches: list[Batch], teacher: Trainable, device: torch.device) -> list[Batch]:
    """Return the batches with the outputs of a teacher, so that it runs once and not in every epoch.

    The batches are returned unchanged if an output does not have one row for each sample, or if all outputs
    take more than `ROOM_BYTES`. The teacher then runs at every step.
    """
    kept: list[Batch] = []
    room = ROOM_BYTES
    for batch in batches:
        with torch.no_grad():
            targets = tuple(target.cpu() for target in teacher(batch.to(device).feeds))
        room -= sum(target.nbytes for target in targets)
        if room < 0 or any(target.shape[:1] != (len(batch),) for target in targets):
            return batches
        kept.append(replace(batch, targets=targets))
    return kept
