"""Structured pruning: channels, heads and neurons removed from every layer they run through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from compress import prune
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


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
        how = prune.Pruning(
            ratio=self.ratio,
            of=self.of,
            hardware=self.hardware,
            importance=self.importance,
            scope=self.scope,
            kinds=self.kinds,
            round_to=self.round_to,
            minimum=self.minimum,
            repair=self.repair,
            damping=self.damping,
            seed=self.seed,
        )
        return prune.remove_channels(model, self.selects, how)
