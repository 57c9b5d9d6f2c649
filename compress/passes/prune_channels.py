"""Structured pruning: channels, heads and neurons removed from every layer they run through."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from pydantic import Field

from compress.changes import Change
from compress.errors import LimitError, ModelError, PassError
from compress.passes.base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from compress.model import Model
    from compress.numerics.importance import Scores
    from compress.prune.axes import Mask
    from compress.prune.coupling import Coupling, Group

Shapes: TypeAlias = dict[str, tuple[int, ...]]
Sizes: TypeAlias = dict[str, tuple[tuple[int, ...], int]]

STEPS = 10
"""Halvings of the interval in which the ratio of channels is sought: to a thousandth."""
CLOSE = 0.005
"""How far below its goal a cost may end, as a fraction, before the search does."""
MOST = 0.9
"""Largest fraction of a group's channels that goes when channels of all groups compete."""


class PruneChannels(Pass, name="prune-channels"):
    """Remove the least important channels, so that every tensor they run through gets smaller.

    Layers whose channels meet (residual additions, depthwise convolutions, concatenations, the query and
    key of an attention head) lose the same ones, and the result is an ordinary, smaller graph: it
    is faster on any runtime. Pruning alone costs accuracy quickly. `repair` wins much of it back from
    unlabelled calibration data, if they are many and varied; `finetune` wins back more. Quantize last.

    Example: ``prune-channels: {ratio: 0.5, of: macs, repair: true}``
    """

    ratio: float = Field(default=0.3, gt=0, lt=1)
    """Fraction of the channels that is removed, rounded down; or of what `of` names."""
    of: Literal["channels", "macs", "weight-bytes", "energy"] = "channels"
    """What the ratio is a fraction of; for all but channels, the ratio of channels is found by bisection."""
    hardware: str = "cpu"
    """Profile that tells the energy."""
    importance: Literal["auto", "magnitude", "activation", "batch-norm", "taylor", "fisher", "random"] = (
        "auto"
    )
    """What tells important channels: the weights' size; the size of weights times what they read, from
    calibration data; the scale of BatchNormalization; the change of the loss on labels (taylor) or of the
    outputs (fisher, needs no labels), by gradients; nothing. auto is fisher where there are calibration data
    and torch can run the graph, else magnitude."""
    scope: Literal["auto", "local", "global"] = "auto"
    """Whether every group loses the same fraction, or the least important channels of all groups go, for
    what they save. auto is global with taylor and fisher, whose numbers mean the same in every group."""
    kinds: tuple[Literal["channels", "heads", "head-width", "embedding"], ...] = ("channels", "heads")
    """What is removed: convolution channels, neurons and recurrent units; attention heads, key/value groups
    and convolution groups; the width of heads; widths that a normalization averages over."""
    round_to: int = Field(default=1, ge=1)
    """Kept channels are rounded up to a multiple of this, as hardware wants; heads are not rounded. ONNX
    Runtime pads convolutions to blocks of 16 channels on processors with AVX-512 and of 8 on others: other
    numbers save work on paper that still takes its time."""
    minimum: int = Field(default=1, ge=1)
    """Channels that every layer keeps."""
    repair: bool = False
    """Whether the layers behind are refitted to their former outputs by least squares on calibration data."""
    damping: float | None = Field(default=None, gt=0)
    """How strongly repair holds on to the old weights; without a number, every layer's is chosen by
    cross-validation between batches, and layers that no fit makes better stay."""
    seed: int = 0
    """Of random importance."""

    def apply(self, model: Model) -> list[Change]:
        """Remove channels in place."""
        from compress.prune.coupling import Coupling
        from compress.prune.repair import repair

        shapes = _shapes(model)
        groups = Coupling(model.ir, shapes).groups
        chosen, changes = self._choose(groups)
        kind, found = self._importance(model, [groups[i] for i in chosen])
        scores = dict(zip(chosen, found, strict=True))
        kinds = {index: groups[index].kind for index in chosen}
        everywhere = self.scope == "global" or (self.scope == "auto" and kind in ("taylor", "fisher"))
        worth = self._worth(model, shapes, {groups[i]: scores[i] for i in chosen}) if everywhere else []

        def masks(ratio: float) -> dict[int, Mask]:
            shares = _shares(worth, ratio) if everywhere else [ratio] * len(chosen)
            return {
                index: _best(scores[index], self._count(kinds[index], scores[index], share))
                for index, share in zip(chosen, shares, strict=True)
            }

        keep = masks(self.ratio if self.of == "channels" else self._ratio_of_channels(model, shapes, masks))
        for index in chosen:
            if keep[index].all():
                group = groups[index]
                reason = f"its {group.size} {group.kind} stay: none may go once the share is rounded"
                changes.append(Change(group.name, skipped=reason))
        before, former = _sizes(model.graph), model.copy()
        coupling, removed = _remove(model, shapes, keep)
        if self.repair:
            repair(model, former, coupling, removed, self.damping)
        _execute(model, shapes)
        return [*_account(model.graph, before), *changes]

    def _choose(self, groups: Sequence[Group]) -> tuple[list[int], list[Change]]:
        """Return the numbers of the groups to prune, and why the others stay.

        Of axes that multiply to one dimension only the first is pruned: heads and their width would
        otherwise both lose the ratio.
        """
        chosen: list[int] = []
        changes = []
        for index, group in enumerate(groups):
            reason = self._reason_to_stay(group)
            rival = next((groups[i].name for i in chosen if groups[i].leaf in group.rivals), None)
            if not reason and rival is not None:
                reason = f"the heads of {rival!r} are pruned instead"
            if reason:
                changes.append(Change(group.name, skipped=f"its {group.size} {group.kind} stay: {reason}"))
            else:
                chosen.append(index)
        return chosen, changes

    def _reason_to_stay(self, group: Group) -> str:
        inputs = [value for node in group.producers for value in node.inputs if value is not None]
        weights = [value.name for value in inputs if value.is_initializer()]
        if not self.selects(*weights, *(node.name for node in group.producers)):
            return "include and exclude leave it out"
        if group.kind not in self.kinds:
            return f"kinds does not name {group.kind!r}"
        return group.obstacle

    def _importance(self, model: Model, groups: Sequence[Group]) -> tuple[str, list[Scores]]:
        """Return the importance of every channel, and what kind it is."""
        from compress.prune.saliency import importance

        if self.importance != "auto":
            return self.importance, importance(self.importance, model, groups, self.seed)
        if model.calibration is not None:
            with contextlib.suppress(ModelError):  # torch cannot run the graph
                return "fisher", importance("fisher", model, groups, self.seed)
        return "magnitude", importance("magnitude", model, groups, self.seed)

    def _worth(self, model: Model, shapes: Shapes, scores: Mapping[Group, Scores]) -> list[Scores]:
        """Return what each channel of each group is good for, for what its removal saves."""
        from compress.prune.price import prices
        from compress.prune.saliency import shares_of_weights

        if self.of == "channels":
            return list(scores.values())
        costs = prices(model, self.of, self.hardware, shapes)
        saved = shares_of_weights(model.graph, scores, costs)
        return [values**2 / cost for values, cost in zip(scores.values(), saved, strict=True)]

    def _count(self, kind: str, scores: Scores, share: float) -> int:
        """Return how many channels a group keeps when it may lose a share of them."""
        multiple = 1 if kind in ("heads", "head-width") else self.round_to
        wanted = max(scores.size - math.floor(scores.size * share + 1e-9), self.minimum)
        return min(math.ceil(wanted / multiple) * multiple, scores.size)

    def _ratio_of_channels(
        self, model: Model, shapes: Shapes, masks: Callable[[float], dict[int, Mask]]
    ) -> float:
        """Return the smallest ratio of channels that takes `ratio` off the cost."""
        goal = (1 - self.ratio) * self._cost(model, shapes)

        def cost(ratio: float) -> float:
            smaller = model.copy()
            _remove(smaller, shapes, masks(ratio))
            return self._cost(smaller, shapes)

        low, high = 0.0, 1.0
        if cost(high) > goal:
            raise LimitError(
                f"prune-channels: {self.ratio:.0%} fewer {self.of} cannot be reached by what may be pruned; "
                "lower the ratio, name more kinds, or take minimum and round_to down"
            )
        for _ in range(STEPS):
            middle = (low + high) / 2
            left = cost(middle)
            low, high = (low, middle) if left <= goal else (middle, high)
            if (1 - CLOSE) * goal <= left <= goal:
                break
        return high

    def _cost(self, model: Model, shapes: Shapes) -> float:
        from compress.prune.price import price

        assert self.of != "channels"  # a ratio of channels is no cost
        return price(model, self.of, self.hardware, shapes)


def _shares(worth: Sequence[Scores], ratio: float) -> list[float]:
    """Return which fraction of each group belongs to the least worthy `ratio` of all channels."""
    removable = [np.sort(values)[: math.floor(MOST * values.size)] for values in worth]
    group = np.repeat(np.arange(len(worth)), [part.size for part in removable])
    count = math.floor(ratio * sum(values.size for values in worth) + 1e-9)
    least = np.argsort(np.concatenate([*removable, np.empty(0)]), kind="stable")[:count]
    lost = np.bincount(group[least], minlength=len(worth))
    return [float(number) / values.size for number, values in zip(lost, worth, strict=True)]


def _best(scores: Scores, count: int) -> Mask:
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores, kind="stable")[:count]] = True
    return mask


def _shapes(model: Model) -> Shapes:
    """Return the input shapes of the first calibration batch; none where there is none."""
    if model.calibration is None:
        return {}
    return {name: array.shape for name, array in model.calibration.first(model.graph.inputs).items()}


def _remove(model: Model, shapes: Shapes, keep: Mapping[int, Mask]) -> tuple[Coupling, dict[Group, Mask]]:
    """Remove channels from groups given by number."""
    from compress.prune.coupling import Coupling

    coupling = Coupling(model.ir, shapes)
    masks = {coupling.groups[index]: mask for index, mask in keep.items() if not mask.all()}
    coupling.remove(masks)
    return coupling, masks


def _sizes(graph: ir.Graph) -> Sizes:
    """Return shape and bytes of every initializer."""
    return {
        name: (tuple(value.const_value.shape.numpy()), value.const_value.nbytes)
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }


def _account(graph: ir.Graph, before: Sizes) -> Iterator[Change]:
    """Yield a change for every node whose weights got smaller; a shared weight counts once."""
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


def _execute(model: Model, shapes: Shapes) -> None:
    """Run the graph at two batch sizes; a shape constant that no longer fits shows only then."""
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    from compress.errors import ModelError
    from compress.graph.session import session
    from compress.graph.shapes import bind

    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    batch_symbols = {str(value.shape[0]) for value in inputs if value.shape and not value.shape.is_static(0)}
    bound = bind(model.ir, shapes)
    try:
        runner = session(model.ir)
        for batch in (1, 2):
            feeds = {}
            for value in inputs:
                shape, dtype = bound[value.name or ""]
                sizes = [
                    batch if str(dim) in batch_symbols else size
                    for dim, size in zip(value.shape or shape, shape, strict=True)
                ]
                feeds[value.name or ""] = np.zeros(sizes, dtype.numpy())
            runner.run(None, feeds)
    except (ModelError, runtime.Fail, runtime.InvalidArgument, runtime.RuntimeException) as error:
        raise PassError(f"prune-channels: the pruned graph does not run: {error}") from error
