"""Structured pruning: channels, heads and neurons removed from every layer that they run through."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from compress.changes import Change, Reason
from compress.data import Feeds, shapes
from compress.diagnose.samples import random_feeds
from compress.errors import LimitError, PassError, first_line
from compress.graph import batch
from compress.graph.session import RUNTIME_ERRORS, session
from compress.model import Model
from compress.numerics.importance import Scores
from compress.prune.axes import Mask
from compress.prune.coupling import Coupling, Group, Kind
from compress.prune.price import Unit, price, prices
from compress.prune.repair import repair
from compress.prune.saliency import Importance, importance, shares_of_weights

Shapes: TypeAlias = dict[str, tuple[int, ...]]
Sizes: TypeAlias = dict[str, tuple[tuple[int, ...], int]]

STEPS = 10
"""Bisection steps for the ratio of channels: they find it to a thousandth."""
CLOSE = 0.005
"""Fraction by which the cost may lie below its goal when the search stops."""
MOST = 0.9
"""Largest fraction of a group's channels that is removed when the channels of all groups compete."""
NONE_LEFT = Reason.SMALL.because("after rounding, none is left to remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """How channels are removed; the settings of the pass ``prune-channels`` document each field."""

    ratio: float
    of: Literal["channels"] | Unit
    hardware: str
    importance: Importance
    scope: Literal["auto", "local", "global"]
    kinds: tuple[Kind, ...]
    round_to: int
    minimum: int
    repair: bool
    damping: float | None
    seed: int

    def count(self, group: Group, share: float) -> int:
        """Return how many channels a group keeps if at most a fraction `share` of them is removed."""
        multiple = 1 if group.kind in ("heads", "head-width") else self.round_to
        wanted = number_kept(group.size, share, self.minimum)
        return min(math.ceil(wanted / multiple) * multiple, group.size)


def remove_channels(model: Model, selects: Callable[..., bool], how: Pruning) -> list[Change]:
    """Remove the least important channels from every layer that they run through, in place.

    Args:
        model: the model; most kinds of importance, and repair, read its calibration data.
        selects: tells from the names of a group's layers and weights whether it may lose channels.
        how: the settings.

    Raises:
        DataError: there are no calibration data where they are read, or no labels.
        LimitError: removing all channels that may be removed does not save enough of the cost.
        ModelError: the shapes of the graph cannot be inferred, or torch cannot run it for the importance.
        PassError: the pruned graph does not run, or cannot be tried.
    """
    shapes = shapes_of_data(model)
    coupling = Coupling(model.ir, shapes)
    groups, changes = _choose(coupling.groups, selects, how.kinds)
    kind, found = importance(how.importance, model, groups, how.seed)
    scores = dict(zip(groups, found, strict=True))
    costs = {} if how.of == "channels" else prices(model, how.of, how.hardware, shapes)
    if how.scope == "global" or (how.scope == "auto" and kind in ("taylor", "fisher")):
        worth = _worth(scores, costs)
    else:
        worth = []

    def keep(ratio: float) -> dict[Group, Mask]:
        shares = _shares(worth, ratio) if worth else [ratio] * len(groups)
        return {
            group: most_important(scores[group], how.count(group, share))
            for group, share in zip(groups, shares, strict=True)
        }

    def smaller(ratio: float) -> Model:
        copy = model.copy()
        coupling.removal(keep(ratio)).apply(copy.graph)
        return copy

    ratio, of = how.ratio, how.of
    if of != "channels":
        goal = (1 - ratio) * sum(costs.values())
        ratio = _ratio_of_channels(how, goal, lambda tried: price(smaller(tried), of, how.hardware, shapes))
    kept = keep(ratio)
    for group, mask in kept.items():
        if mask.all():
            changes += left(group, NONE_LEFT)
    return [*remove(model, coupling, kept, how.repair, how.damping), *changes]


def remove(
    model: Model,
    coupling: Coupling,
    kept: Mapping[Group, Mask],
    repairs: bool,
    damping: float | None = None,
) -> list[Change]:
    """Remove channels in place; return a change for every node whose weights became smaller.

    Args:
        model: the model, or a copy of the one that `coupling` is of.
        coupling: its coupling groups.
        kept: mask of the channels that groups keep.
        repairs: whether layers that read fewer channels are refitted on calibration data.
        damping: see `compress.prune.repair.repair`.

    Raises:
        DataError: there are no calibration data to repair with.
        PassError: the pruned graph does not run, or cannot be tried.
    """
    before, former = _sizes(model.graph), model.ir.clone()
    removal = coupling.removal(kept)
    removal.apply(model.graph)
    if repairs:
        repair(model, former, removal, damping)
    _execute(model, former)
    return [*_account(model.graph, before)]


def _choose(
    groups: Sequence[Group], selects: Callable[..., bool], kinds: Sequence[Kind]
) -> tuple[list[Group], list[Change]]:
    """Return the groups to prune, and a change with the reason for each of the others.

    Only the first of several axes whose product is one dimension is pruned: otherwise heads and their
    width would both lose the ratio.
    """
    chosen: list[Group] = []
    changes = []
    for group in groups:
        rival = next((other.name for other in chosen if other.leaf in group.rivals), None)
        if not selects(*_names(group)):
            reason: str = Reason.LEFT_OUT
        elif group.kind not in kinds:
            reason = Reason.SETTINGS.because(f"kinds does not name {group.kind!r}")
        elif group.obstacle:
            reason = Reason.USE.because(group.obstacle)
        elif rival is not None:
            reason = Reason.SETTINGS.because(f"the heads of {rival!r} are pruned instead")
        else:
            chosen.append(group)
            continue
        changes += left(group, reason)
    return chosen, changes


def free(groups: Mapping[str, Group], kinds: Collection[Kind]) -> dict[str, Group]:
    """Return the groups of these kinds that may lose channels; of several in one dimension, the first."""
    chosen, _ = _choose([*groups.values()], lambda *_: True, tuple(kinds))
    return {name: group for name, group in groups.items() if group in chosen}


def left(group: Group, reason: str) -> list[Change]:
    """Return a record for each layer that makes the channels of a group."""
    size = f"its {group.size} {group.kind} stay"
    told = f"{reason}, {size}" if ":" in reason else f"{reason}: {size}"
    return [Change(node.name or "", skipped=told) for node in group.producers]


def _names(group: Group) -> list[str | None]:
    """Return the names of the layers that produce a group's channels, and of their weights."""
    inputs = [value for node in group.producers for value in node.inputs if value is not None]
    weights = [value.name for value in inputs if value.is_initializer()]
    return [*weights, *(node.name for node in group.producers)]


def _worth(scores: Mapping[Group, Scores], costs: Mapping[str, float]) -> list[Scores]:
    """Return the importance of each channel of each group, divided by the cost that its removal saves."""
    if not costs:
        return list(scores.values())
    saved = shares_of_weights(scores, costs)
    return [values**2 / cost for values, cost in zip(scores.values(), saved, strict=True)]


def _ratio_of_channels(how: Pruning, goal: float, cost: Callable[[float], float]) -> float:
    """Return the smallest ratio of channels that leaves no more than `goal` of the cost.

    Raises:
        LimitError: no ratio does.
    """
    low, high = 0.0, 1.0
    if cost(high) > goal:
        raise LimitError(
            f"prune-channels: all channels that may go save less than {how.ratio:.0%} of the {how.of}; "
            "lower ratio, minimum or round_to, or name more kinds"
        )
    for _ in range(STEPS):
        middle = (low + high) / 2
        left = cost(middle)
        low, high = (low, middle) if left <= goal else (middle, high)
        if (1 - CLOSE) * goal <= left <= goal:
            break
    return high


def _shares(worth: Sequence[Scores], ratio: float) -> list[float]:
    """Return the fraction of each group that belongs to the least important `ratio` of all channels."""
    removable = [np.sort(values)[: math.floor(MOST * values.size)] for values in worth]
    group = np.repeat(np.arange(len(worth)), [part.size for part in removable])
    count = math.floor(ratio * sum(values.size for values in worth) + 1e-9)
    least = np.argsort(np.concatenate([*removable, np.empty(0)]), kind="stable")[:count]
    lost = np.bincount(group[least], minlength=len(worth))
    return [float(number) / values.size for number, values in zip(lost, worth, strict=True)]


def number_kept(size: int, removed: float, minimum: int = 1) -> int:
    """Return how many of `size` channels stay if at most a fraction of them is removed."""
    return max(size - math.floor(size * removed + 1e-9), minimum)


def most_important(scores: Scores, count: int) -> Mask:
    """Return a mask of the `count` channels of the highest scores; of equal ones, the first stay."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores, kind="stable")[:count]] = True
    return mask


def shapes_of_data(model: Model) -> Shapes:
    """Return the input shapes of the first calibration batch; empty without calibration data."""
    if model.calibration is None:
        return {}
    return shapes(model.calibration.first(model.graph.inputs))


def _sizes(graph: ir.Graph) -> Sizes:
    """Return shape and bytes of every initializer."""
    return {
        name: (tuple(value.const_value.shape.numpy()), value.const_value.nbytes)
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }


def _account(graph: ir.Graph, before: Sizes) -> Iterator[Change]:
    """Yield a change for every node whose weights became smaller; a shared weight counts once."""
    after = _sizes(graph)
    counted: set[str] = set()
    for node in graph:
        names = dict.fromkeys(value.name or "" for value in node.inputs if value is not None)
        mine = [name for name in names if name in before and name in after and name not in counted]
        counted.update(mine)
        if all(before[name][0] == after[name][0] for name in mine):
            continue
        largest = max(mine, key=lambda name: before[name][1])
        old, new = ("x".join(map(str, sizes[largest][0])) for sizes in (before, after))
        yield Change(
            node.name or "",
            f"weights {old} to {new}",
            sum(before[name][1] for name in mine),
            sum(after[name][1] for name in mine),
        )


def _execute(model: Model, before: ir.Model) -> None:
    """Run the pruned graph where the one before it runs: only that finds a shape constant that does not fit.

    Raises:
        PassError: it does not run, or there is nothing that even the graph before it runs on.
    """
    former = session(before)
    ran = False
    for feeds in _trials(model, partial(former.run, None)):
        try:
            former.run(None, feeds)
        except RUNTIME_ERRORS:
            continue
        ran = True
        try:
            session(model.ir).run(None, feeds)
        except RUNTIME_ERRORS as error:
            raise PassError(f"the graph without the channels does not run: {first_line(error)}") from error
    if not ran:
        raise PassError(
            "the graph without the channels cannot be checked, because the model runs on no random inputs; "
            "give calibration data"
        )


def _trials(model: Model, run: batch.Run) -> list[Feeds]:
    """Return the first calibration batch and one sample of it; without data, random ones of two sizes."""
    inputs = model.graph.inputs
    if model.calibration is None:
        names = batch.symbols(inputs)
        return [random_feeds(model.ir, dict.fromkeys(names, size)) for size in (1, 2)]
    first = model.calibration.first(inputs)
    return [first, batch.find(run, inputs, [first], model.calibration.batch_axis).sample(first)]
