"""Cross-layer equalization: neighbouring layers share their range, channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Equalize(Pass, name="equalize"):
    """Scale channels between neighbouring layers so that both have the same range of weights in each.

    One layer's outputs are divided by what the next one's inputs are multiplied by, depthwise
    convolutions included; the network computes the same. It helps where one scale serves a whole
    weight (`int8-static` with ``per_channel: false``) and where weights have few bits. With a scale
    per channel it gains nothing, and activations may become harder to round. Layers must follow each
    other through nothing but bias, ReLU, leaky ReLU and pooling: the upper end of a ReLU6, a residual
    sum or a second reader stops it. BatchNormalization is folded first.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019).

    Example: ``equalize: {exclude: ["*head*"]}``
    """

    def apply(self, model: Model) -> list[Change]:
        """Equalize every chain of selected layers."""
        return quantize.equalize(model, self.selects)
