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

    Layers whose channels meet (in residual additions, depthwise convolutions, concatenations, the query and
    key of an attention head) lose the same channels. The result is an ordinary, smaller graph that is
    faster on any runtime. Pruning alone soon costs accuracy. `repair` recovers much of it from unlabelled
    calibration data, if they are many and varied; `finetune` recovers more. Quantize last.

    Example: ``prune-channels: {ratio: 0.5, of: macs, repair: true}``
    """

    ratio: float = Field(default=0.3, gt=0, lt=1)
    """Fraction of the channels that is removed, rounded down; or of the cost in `of`."""
    of: Literal["channels", "macs", "weight-bytes", "energy"] = "channels"
    """What the ratio is a fraction of. For a cost, bisection finds the ratio of channels that saves it."""
    hardware: str = "cpu"
    """Hardware profile that prices energy, for ``of: energy``."""
    importance: Literal["auto", "magnitude", "activation", "batch-norm", "taylor", "fisher", "random"] = (
        "auto"
    )
    """How important channels are told: by the magnitude of their weights; by weights times activations on
    calibration data; by the scale of BatchNormalization; from gradients, by the change of the loss on labels
    (taylor) or of the outputs (fisher, which needs no labels); at random. auto is fisher where there are
    calibration data and torch can run the graph, otherwise magnitude."""
    scope: Literal["auto", "local", "global"] = "auto"
    """local removes the same fraction of every coupling group; global removes the channels of least
    importance per cost saved among all groups. auto is global with taylor and fisher, whose scores are
    comparable between groups."""
    kinds: tuple[Literal["channels", "heads", "head-width", "embedding"], ...] = ("channels", "heads")
    """What is removed. channels are convolution channels, neurons and recurrent units; heads are attention
    heads, key/value groups and convolution groups; head-width is the width of heads; embedding is a width
    that a normalization averages over."""
    round_to: int = Field(default=1, ge=1)
    """The number of kept channels is rounded up to a multiple of this; heads are not rounded. ONNX Runtime
    pads convolutions to blocks of 16 channels on processors with AVX-512 and of 8 on others, so that a
    number between two multiples takes the time of the higher one."""
    minimum: int = Field(default=1, ge=1)
    """Channels that every layer keeps."""
    repair: bool = False
    """Whether the layers that read fewer channels are refitted to their former outputs, by least squares on
    calibration data."""
    damping: float | None = Field(default=None, gt=0)
    """Ridge of repair towards the old weights, relative to the mean square input. Left out, it is chosen for
    every layer by cross-validation between batches, and layers that no fit improves keep their weights."""
    seed: int = 0
    """Seed of random importance."""

    def apply(self, model: Model) -> list[Change]:
        """Remove channels in place."""
        return prune.remove_channels(model, self.selects, prune.Pruning(**self.own()))
