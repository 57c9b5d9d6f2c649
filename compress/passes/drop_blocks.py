"""Depth pruning: whole residual blocks that change little are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress import prune
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class DropBlocks(Pass, name="drop-blocks"):
    """Take out the residual blocks that change the outputs least, with all their layers.

    A block is a branch that is added to the stream which bypasses it: the two convolutions of a ResNet
    block, the attention or the feed-forward part of a transformer layer. Its importance is measured: the
    branch is switched off, and all outputs are compared on calibration data. Fewer layers are faster on
    any runtime and device. A large transformer loses little with a tenth of its blocks, while a small
    network suffers from the first. `finetune` recovers accuracy. Quantize last.

    Example: ``drop-blocks: {ratio: 0.2}``
    """

    accounts: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = True

    ratio: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the blocks that is dropped, rounded down but at least one; or of the cost in `of`."""
    of: Literal["blocks", "macs", "weight-bytes", "energy"] = "blocks"
    """What the ratio is a fraction of. With a cost, blocks are ranked by their effect per cost saved."""
    hardware: str = "cpu"
    """Hardware profile that prices energy, for ``of: energy``."""
    greedy: bool = True
    """Whether effects are measured again after each dropped block, which notices blocks that compensate for
    each other. Otherwise they are measured once, which is faster on deep networks."""
    batches: int = Field(default=2, ge=1)
    """Calibration batches on which effects are measured."""

    def apply(self, model: Model) -> list[Change]:
        """Drop blocks in place."""
        return prune.drop_blocks(model, self.selects, **self.own())
