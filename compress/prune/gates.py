"""Importance of channels from gradients: how the loss or the outputs change when a channel is removed.

The gate of a channel is a factor, one in the given model, on all that the channel passes to later layers.
The derivative by the gate is the sum of weight times gradient over the weights that read the channel, so
that one backward pass through the trainable graph serves every channel of every group. In a residual
stream, each reader counts once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compress.errors import DataError
from compress.graph import facts
from compress.model import Model
from compress.numerics.importance import Scores
from compress.progress import track
from compress.prune.coupling import Group, Member
from compress.train.examples import Batch
from compress.train.objective import Objective, gives_probabilities
from compress.trainable.module import Trainable

PROBES = 32
"""Random directions of the outputs that are back-propagated, divided among the batches."""
TINY = 1e-12
"""Mean square below which an output counts as this large."""
RARE = 1e-4
"""Fraction of the usual mean square below which one index of an output counts as this large."""


def taylor(model: Model, groups: Sequence[Group]) -> list[Scores]:
    """Return how much the loss on the labels changes, to first order, when a channel is removed.

    It is the root of the mean over the batches of the squared change (Molchanov et al., Importance
    Estimation for Neural Network Pruning, CVPR 2019, equation 8).

    Raises:
        DataError: there are no calibration data, or a batch has no labels.
    """
    if model.calibration is None:
        raise DataError(
            "importance: taylor needs calibration data with labels, and the model has no calibration data"
        )
    gates = _Gates(model, groups)
    objective = Objective(probabilities=gates.probabilities)
    for feeds, labels in track(model.calibration.batches(model.graph.inputs), "importance"):
        if labels is None:
            raise DataError("importance: taylor needs (inputs, labels) batches; fisher needs no labels")
        batch = Batch(_tensors(feeds), torch.as_tensor(np.asarray(labels)))
        gates.follow([objective(gates.module(batch.feeds), batch)])
    return gates.scores()


def fisher(model: Model, groups: Sequence[Group]) -> list[Scores]:
    """Return how much the outputs change when a channel is removed: the root of its Fisher information.

    That is the squared derivative of every output, relative to its mean square, summed over outputs and
    samples (the Gauss-Newton diagonal: Theis et al., Faster gaze prediction with dense networks and Fisher
    pruning, 2018). The mean square is taken for each index of the axis along which it differs most, since a
    detector's output holds pixels beside probabilities, and the pixels would decide alone. For class
    probabilities the derivative is that of their roots, which gives the Fisher information of the predicted
    class. The sum is estimated with random directions, independent for every output and sample, on the first
    32 batches. No labels are read.

    Raises:
        DataError: there are no calibration data.
    """
    gates = _Gates(model, groups)
    random = torch.Generator().manual_seed(0)
    batches = list(itertools.islice(model.batches(), PROBES))
    for feeds in track(batches, "importance"):
        first, *others = gates.module(_tensors(feeds))
        rest = others if gates.probabilities else [first, *others]
        outputs = [_in_one_unit(output) for output in rest if output.requires_grad]  # integers have none
        if gates.probabilities and first.requires_grad:
            roots = first.clamp(min=TINY).sqrt()
            outputs.insert(0, roots / roots.detach().square().mean().sqrt())
        gates.follow(_probes(outputs, random, math.ceil(PROBES / len(batches))))
    return gates.scores()


def _probes(outputs: Sequence[Tensor], random: torch.Generator, count: int) -> Iterator[Tensor]:
    for _ in range(count if outputs else 0):
        terms = [(output * torch.randn(output.shape, generator=random)).sum() for output in outputs]
        yield torch.stack(terms).sum()


def _in_one_unit(output: Tensor) -> Tensor:
    """Return an output over its root mean square, for each index of the axis along which that differs most.

    An index that is hardly ever other than zero is taken for a hundredth of the usual size, not blown up.
    """
    squares = output.detach().square()
    means = [squares.mean()]
    for axis in range(1, output.dim()):
        others = [other for other in range(output.dim()) if other != axis]
        means.append(squares.mean(others, keepdim=True))
    widest = max(means, key=lambda mean: float(mean.clamp(min=TINY).log().var(correction=0)))
    return output * widest.clamp(min=max(TINY, RARE * float(widest.median()))).rsqrt()


def _tensors(feeds: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}


class _Gates:
    """The gates of all groups, and the sum of their squared derivatives."""

    def __init__(self, model: Model, groups: Sequence[Group]) -> None:
        self._cuts = [_cut(group) for group in groups]
        names = {member.value.name or "" for cut in self._cuts for member in cut}
        self.module = Trainable(model.ir, trained=names).eval()
        self.probabilities = gives_probabilities(model)
        self._weights = {
            name: weight for name, weight in self.module.trained_weights().items() if name in names
        }
        self._squares = [np.zeros(group.size) for group in groups]
        self._count = 0

    def follow(self, ends: Iterator[Tensor] | Sequence[Tensor]) -> None:
        """Add the squared derivatives of each of `ends`, scalars of one forward pass."""
        for end in ends:
            found = torch.autograd.grad(
                end, list(self._weights.values()), retain_graph=True, allow_unused=True
            )
            gradients = dict(zip(self._weights, found, strict=True))
            for squares, cut in zip(self._squares, self._cuts, strict=True):
                squares += self._derivative(cut, gradients, len(squares)) ** 2
            self._count += 1

    def _derivative(self, cut: Sequence[Member], gradients: Mapping[str, Tensor | None], size: int) -> Scores:
        total = np.zeros(size)
        for member in cut:
            name = member.value.name or ""
            gradient = gradients.get(name)
            if gradient is not None:
                product = self._weights[name].detach() * gradient
                others = [axis for axis in range(product.dim()) if axis != member.axis]
                slices = product.sum(others) if others else product
                inside = member.channels >= 0
                weights = slices.double().numpy()[inside]
                total += np.bincount(member.channels[inside], weights, minlength=size)
        return total

    def scores(self) -> list[Scores]:
        """Return the root mean square derivative of every gate."""
        return [np.sqrt(squares / max(self._count, 1)) for squares in self._squares]


def _cut(group: Group) -> list[Member]:
    """Return the weights that carry the gates of a group: those that read it, or, where a product of two
    activations reads it too, the weights and biases that produce it."""
    reading = [member for member in group.members if member.consumers]
    nodes = {member.consumers[-1] for member in reading}
    if reading and nodes >= set(group.consumers):
        return reading
    return [
        member
        for member in group.members
        if member not in reading and _is_float(member.value) and not _normalizes(member.value)
    ]


def _is_float(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.dtype.is_floating_point()


def _normalizes(value: ir.Value) -> bool:
    return any(facts.of(node).normalizes for node in value.consumers())
