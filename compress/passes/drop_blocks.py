"""Depth: whole residual blocks that do little."""

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
    """Whether effects are measured again after each block that went, which shows where two blocks make up
    for each other; otherwise they are measured once, which is faster on deep networks."""
    batches: int = Field(default=2, ge=1)
    """Calibration batches on which the effect is measured."""

    def apply(self, model: Model) -> list[Change]:
        """Drop blocks in place."""
        return prune.drop_blocks(
            model,
            self.selects,
            ratio=self.ratio,
            of=self.of,
            hardware=self.hardware,
            greedy=self.greedy,
            batches=self.batches,
        )
