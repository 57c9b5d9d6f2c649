"""Training data in memory: batches, their order, and the outputs of a teacher for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from compress.data import Feeds
from compress.graph.batch import NO_BATCH, BatchAxes, results
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

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the batch."""
        return [*self.feeds.values(), *([] if self.labels is None else [self.labels]), *self.targets]


@dataclass(frozen=True)
class Examples:
    """Training data in memory, in an order that depends on seed and epoch alone.

    Attributes:
        batches: the data as they were given.
        batch_size: samples of a step, drawn from all batches; 0 takes the batches as they are.
        seed: seed of the order.
        axes: where the samples of a batch lie; without any, a batch counts as one sample.
    """

    batches: list[Batch]
    batch_size: int = 0
    seed: int = 0
    axes: BatchAxes = NO_BATCH

    def split(self, held_out: float) -> tuple[Examples, Examples]:
        """Return the training part and the held-out part, which is a fraction of the samples or batches."""
        count = math.floor(len(self.batches) * held_out)
        if self.batch_size:
            pool = joined(self.batches, self.axes)
            samples = self.size(pool)
            count = math.floor(samples * held_out)
            order = torch.randperm(samples, generator=torch.Generator().manual_seed(self.seed))
            train, judge = order[: samples - count], order[samples - count :]
            parts = [[self._chosen(pool, train)], [self._chosen(pool, judge)] if count else []]
        else:
            parts = [self.batches[: len(self.batches) - count], self.batches[len(self.batches) - count :]]
        first, second = (replace(self, batches=part) for part in parts)
        return first, second

    def size(self, batch: Batch) -> int:
        """Return how many samples a batch has."""
        return self.axes.size(batch.feeds)

    def _chosen(self, batch: Batch, samples: Tensor) -> Batch:
        feeds, labels, targets = _axes_of(batch, self.axes)
        return Batch(
            {name: _taken(tensor, feeds[name], samples) for name, tensor in batch.feeds.items()},
            None if batch.labels is None else _taken(batch.labels, labels, samples),
            tuple(_taken(*each, samples) for each in zip(batch.targets, targets, strict=True)),
        )

    def __len__(self) -> int:
        """Steps of an epoch in one process."""
        if not self.batch_size:
            return len(self.batches)
        return max(sum(map(self.size, self.batches)) // self.batch_size, 1)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, shuffled; a last batch that is not full is left out."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        if not self.batch_size:
            for place in torch.randperm(len(self.batches), generator=generator).tolist():
                yield self.batches[place]
            return
        pool = joined(self.batches, self.axes)
        order = torch.randperm(self.size(pool), generator=generator)
        for samples in torch.split(order, self.batch_size)[: len(self)]:
            yield self._chosen(pool, samples)

    def in_order(self) -> Iterator[Batch]:
        """Yield all batches in the given order, none left out."""
        for batch in self.batches:
            if not self.batch_size:
                yield batch
                continue
            for samples in torch.split(torch.arange(self.size(batch)), self.batch_size):
                yield self._chosen(batch, samples)


def _axes_of(batch: Batch, axes: BatchAxes) -> tuple[dict[str, int | None], int | None, list[int | None]]:
    """Return where the samples lie in inputs, labels and targets; None where one tensor is for all."""
    feeds = {name: axes.inputs.get(name) for name in batch.feeds}
    targets = [axes.outputs.get(place) for place in range(len(batch.targets))]
    if batch.labels is None:
        return feeds, None, targets
    # Labels are the first output without its classes, or one for each sample.
    count, shape = axes.size(batch.feeds), batch.labels.shape
    likely = (axes.outputs.get(0, 0), 0)
    return feeds, next((at for at in likely if at < len(shape) and shape[at] == count), None), targets


def _taken(tensor: Tensor, axis: int | None, samples: Tensor) -> Tensor:
    return tensor if axis is None else tensor.index_select(axis, samples.to(tensor.device))


def joined(batches: list[Batch], axes: BatchAxes) -> Batch:
    """Return one batch of all samples; what all samples share is the first batch's."""
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    feeds, labels, targets = _axes_of(first, axes)

    def whole(parts: list[Tensor], axis: int | None) -> Tensor:
        return parts[0] if axis is None else torch.cat(parts, axis)

    given = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        {name: whole([batch.feeds[name] for batch in batches], axis) for name, axis in feeds.items()},
        whole(given, labels) if given else None,
        tuple(whole([batch.targets[at] for batch in batches], axis) for at, axis in enumerate(targets)),
    )


def can_shuffle(batches: list[Batch], axes: BatchAxes) -> bool:
    """Tell whether samples of different batches can be mixed: each tensor is one shape but for the samples.

    What has no samples must be the same in all batches, and labels must have one for each sample.
    """
    first = batches[0]
    if not axes.inputs or len({batch.labels is None for batch in batches}) > 1:
        return False
    feeds, labels, _ = _axes_of(first, axes)
    if first.labels is not None and labels is None:
        return False
    return all(_axes_of(batch, axes)[1] == labels and _fits(first, batch, feeds, labels) for batch in batches)


def _fits(first: Batch, batch: Batch, feeds: dict[str, int | None], labels: int | None) -> bool:
    pairs = [(first.feeds[name], batch.feeds[name], axis) for name, axis in feeds.items()]
    if first.labels is not None and batch.labels is not None:
        pairs.append((first.labels, batch.labels, labels))
    return all(
        torch.equal(a, b)
        if axis is None
        else a.dim() == b.dim() and _without(a.shape, axis) == _without(b.shape, axis)
        for a, b, axis in pairs
    )


def _without(shape: torch.Size, axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def taught(
    batches: list[Batch], teacher: Trainable, device: torch.device, axes: BatchAxes
) -> tuple[list[Batch], BatchAxes]:
    """Return the batches with the outputs of a teacher, so that it runs once and not in every epoch.

    The axes say where the samples lie in the teacher's outputs too. The batches are returned unchanged if
    that is not certain for samples that will be mixed, or if all outputs take more than `ROOM_BYTES`. The
    teacher then runs at every step.
    """

    def run(feeds: Feeds) -> list[np.ndarray]:
        inputs = {name: torch.from_numpy(array).to(device) for name, array in feeds.items()}
        with torch.no_grad():
            return [target.cpu().numpy() for target in teacher(inputs)]

    outputs = {}
    if axes.inputs:
        pair = joined([batches[0], batches[-1]], axes)
        outputs = results(run, axes, {name: tensor.numpy() for name, tensor in pair.feeds.items()})
        if not outputs:
            return batches, axes
    kept: list[Batch] = []
    room = ROOM_BYTES
    for batch in batches:
        with torch.no_grad():
            targets = tuple(target.cpu() for target in teacher(batch.to(device).feeds))
        room -= sum(target.nbytes for target in targets)
        if room < 0:
            return batches, axes
        kept.append(replace(batch, targets=targets))
    return kept, replace(axes, outputs=outputs)
