"""Importance of the channels of coupling groups, from weights, activations or gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from compress.errors import ModelError
from compress.graph.capture import observe
from compress.graph.layers import array
from compress.graph.linear import channel_axis, linear_layers, source
from compress.model import Model
from compress.numerics.importance import Indices, Scores, coupled, slice_energy
from compress.prune import gates
from compress.prune.coupling import Group

Importance: TypeAlias = Literal["auto", "magnitude", "activation", "batch-norm", "taylor", "fisher", "random"]
"""How the importance of channels is computed; see `importance`."""

Parts: TypeAlias = Iterator[tuple[Scores, Indices]]


def importance(
    kind: Importance, model: Model, groups: Sequence[Group], seed: int
) -> tuple[Importance, list[Scores]]:
    """Return the kind of importance that was used, and the importance of every channel of each group.

    Args:
        kind: ``magnitude``, the energy of all weights of a channel; ``activation``, the energy of the channel
            times that of the weights that read it (as in Wanda, Sun et al. 2024, for single weights);
            ``batch-norm``, the scale of BatchNormalization (Liu et al., Network Slimming, 2017), and the
            magnitude where there is none; ``taylor`` and ``fisher``, see `compress.prune.gates`; ``random``,
            a baseline; ``auto``, fisher where there are calibration data and torch can run the graph, else
            magnitude.
        model: the model of the groups; ``activation``, ``taylor`` and ``fisher`` read its calibration data.
        groups: the groups.
        seed: of the random scores.

    Raises:
        DataError: there are no calibration data where they are read, or no labels for ``taylor``.
        ModelError: ``taylor`` or ``fisher``, and a node cannot run in torch.
    """
    if kind == "auto":
        if model.calibration is not None:
            with contextlib.suppress(ModelError):  # torch cannot run the graph
                return importance("fisher", model, groups, seed)
        return importance("magnitude", model, groups, seed)
    if not groups:
        return kind, []
    match kind:
        case "random":
            random = np.random.default_rng(seed)
            return kind, [random.random(group.size) for group in groups]
        case "activation":
            return kind, _activation(model, groups)
        case "taylor":
            return kind, gates.taylor(model, groups)
        case "fisher":
            return kind, gates.fisher(model, groups)
        case "batch-norm":
            return kind, [coupled(list(_scales(group)) or _weights(group), group.size) for group in groups]
        case "magnitude":
            return kind, [coupled(_weights(group), group.size) for group in groups]


def shares_of_weights(groups: Iterable[Group], costs: Mapping[str, float]) -> list[Scores]:
    """Return the cost that the removal of one channel saves in the layers that it runs through.

    Args:
        groups: the groups.
        costs: cost of each node by name; it is divided evenly along each dimension of the node's weight.
    """
    saved = []
    for group in groups:
        total = np.full(group.size, np.finfo(np.float64).tiny)
        for member in group.members:
            cost = costs.get(member.layers[-1].name, 0.0) if member.layers else 0.0
            inside = member.channels[member.channels >= 0]
            total += np.bincount(inside, minlength=group.size) * cost / len(member.channels)
        saved.append(total)
    return saved


def _weights(group: Group) -> Parts:
    for member in group.members:
        weight = array(member.value)
        if weight.ndim > 1 and weight.dtype.kind == "f":
            yield slice_energy(weight, member.axis), member.channels


def _scales(group: Group) -> Parts:
    for member in group.members:
        if any(node.op_type == "BatchNormalization" and index == 1 for node, index in member.value.uses()):
            yield slice_energy(array(member.value), 0), member.channels


def _activation(model: Model, groups: Sequence[Group]) -> list[Scores]:
    readers = {layer.weight: layer for layer in linear_layers(model.graph)}
    axes = {source(layer): channel_axis(layer) for layer in readers.values()}
    energies: dict[str, Scores] = {}

    def add(name: str, values: npt.NDArray[np.floating]) -> None:
        energies[name] = energies.get(name, 0.0) + slice_energy(values, axes[name])

    def parts(group: Group) -> Parts:
        for member in group.members:
            layer = readers.get(member.value)
            if layer is not None and member.axis == layer.in_axis:
                inputs = energies[source(layer)].reshape(-1, len(member.channels)).sum(axis=0)
                yield slice_energy(layer.array, member.axis) * inputs, member.channels

    observe(model.ir, axes, model.batches(), add, progress="importance")
    return [coupled(list(parts(group)) or _weights(group), group.size) for group in groups]
