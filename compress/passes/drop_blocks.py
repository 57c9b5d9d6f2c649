"""Depth: whole residual blocks that do little."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress.changes import Change
from compress.errors import LimitError
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.graph.propagate import TensorInfo
    from compress.model import Model
    from compress.prune.blocks import Block


class DropBlocks(Pass, name="drop-blocks"):
    """Take out the residual blocks that change the outputs least, with all their layers.

    A block is what an addition lays on a stream that goes on without it: the two convolutions of a
    ResNet's block, the attention or the feed-forward part of a transformer's layer. Its importance is
    measured: it is closed, and all outputs are compared on calibration data. Fewer layers are faster
    on any runtime and device, but a block is a lot at once: a tenth of a large transformer costs little,
    a small network is hurt by its first. `finetune` wins accuracy back. Quantize last.

    Example: ``drop-blocks: {ratio: 0.2}``
    """

    needs_calibration: ClassVar[bool] = True

    ratio: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the blocks that is dropped, rounded down but at least one; or of what `of` names."""
    of: Literal["blocks", "macs", "weight-bytes", "energy"] = "blocks"
    """What the ratio is a fraction of; blocks then go by their effect for what they save."""
    hardware: str = "cpu"
    """Profile that tells the energy."""
    greedy: bool = True
    """Whether effects are measured anew after each block that went, which sees where two blocks make up for
    each other; otherwise once, which is quicker on deep networks."""
    batches: int = Field(default=2, ge=1)
    """Calibration batches on which the effect is measured."""

    def apply(self, model: Model) -> list[Change]:
        """Drop blocks in place."""
        from compress.graph.shapes import describe
        from compress.prune.blocks import drop, residual_blocks

        shapes = {name: array.shape for name, array in next(model.batches()).items()}
        known = describe(model.ir, shapes)
        blocks = residual_blocks(model.graph, known)
        allowed = [number for number, block in enumerate(blocks) if self.selects(*_names(block))]
        if not allowed:
            reason = "include and exclude leave it out" if blocks else "there is no residual block"
            return [Change(block.name, skipped=reason) for block in blocks] or [Change("", skipped=reason)]
        costs = self._costs(model, blocks, shapes)
        dropped, others = self._search(blocks, allowed, costs, _effects(model, known, self.batches))
        changes = [_account(blocks[number], effect) for number, effect in dropped.items()]
        for number, block in enumerate(blocks):
            if number not in dropped:
                changes.append(Change(block.name, skipped=_reason(others.get(number), number in allowed)))
        drop(model.ir, [blocks[number] for number in dropped])
        return changes

    def _costs(
        self, model: Model, blocks: Sequence[Block], shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, float]:
        """Return what each node counts towards the goal, by name."""
        from compress.prune.price import prices

        if self.of == "blocks":
            return {block.addition.name or "": 1.0 for block in blocks}
        return prices(model, self.of, self.hardware, shapes)

    def _search(
        self,
        blocks: Sequence[Block],
        allowed: Collection[int],
        costs: Mapping[str, float],
        effect: Callable[[Collection[int]], float],
    ) -> tuple[dict[int, float], dict[int, float]]:
        """Return the blocks that go, in order, with the effect of all so far; and that of the others.

        Raises:
            LimitError: the goal is more than all blocks cost.
        """
        goal = self.ratio * sum(costs.values())
        goal = max(int(goal + 1e-9), 1) if self.of == "blocks" else goal
        dropped: dict[int, float] = {}
        effects: dict[int, float] = {}
        gone: set[str] = set()

        def cost(nodes: Collection[str]) -> float:
            return sum(costs.get(name, 0.0) for name in nodes)

        while cost(gone) < goal:
            saved = {number: cost(_nodes(blocks[number]) - gone) for number in allowed}
            left = [n for n in allowed if saved[n] and blocks[n].addition.name not in gone]
            if not left:
                raise LimitError(
                    f"drop-blocks: {self.ratio:.0%} fewer {self.of} is more than all blocks together; "
                    "lower the ratio"
                )
            if self.greedy or not effects:
                effects = {number: effect([*dropped, number]) for number in left}
            best = min(left, key=lambda number: effects[number] / saved[number])
            dropped[best] = effects.pop(best)
            gone |= _nodes(blocks[best])
        return dropped, effects


def _names(block: Block) -> list[str]:
    return [name for layer in block.layers for name in layer.names]


def _nodes(block: Block) -> set[str]:
    return {node.name or "" for node in (*block.nodes, block.addition)}


def _effects(
    model: Model, known: Mapping[str, TensorInfo], batches: int
) -> Callable[[Collection[int]], float]:
    """Return a function that tells the relative error of all outputs when some blocks are closed."""
    import numpy as np

    from compress.progress import track
    from compress.prune.blocks import Gated

    gated = Gated(model, known)
    feeds = list(itertools.islice(model.batches(), batches))
    wanted = [gated.run(each, ()) for each in track(feeds, "original outputs")]

    def effect(closed: Collection[int]) -> float:
        pairs = [
            pair
            for each, targets in zip(feeds, wanted, strict=True)
            for pair in zip(gated.run(each, closed), targets, strict=True)
            if pair[1].dtype.kind == "f"
        ]
        noise = [np.square(got - want, dtype=np.float64).sum() for got, want in pairs]
        signal = [np.square(want, dtype=np.float64).sum() for _, want in pairs]
        return float(np.sqrt(np.mean(np.divide(noise, np.maximum(signal, 1e-30)))))

    return effect


def _account(block: Block, effect: float) -> Change:
    from compress.prune.blocks import initializers

    weights = [value.const_value for value in initializers(block.nodes)]
    size = sum(weight.nbytes for weight in weights if weight is not None)
    text = f"dropped {len(block.layers)} layers; outputs are {effect:.3g} off with all dropped so far"
    return Change(block.name, text, size, 0)


def _reason(effect: float | None, allowed: bool) -> str:
    if not allowed:
        return "include and exclude leave it out"
    if effect is None:
        return "it went with a block around it"
    return f"without it outputs would be {effect:.3g} off"
