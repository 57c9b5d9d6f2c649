"""Cross-layer equalization: neighbouring layers share their range, channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Equalize(Pass, name="equalize"):
    """Scale channels between neighbouring layers so that both have the same range of weights in each channel.

    The output channels of a layer are divided by a scale, and the input channels of the next layer are
    multiplied by it, depthwise convolutions included; the network computes the same. This helps where
    one scale serves a whole weight (`int8-static` with ``per_channel: false``) and where weights have few
    bits. With a scale per channel it gains nothing, and activations may become harder to quantize. Only
    bias, ReLU, leaky ReLU and pooling may stand between the layers, and no other layer may read the value
    between them. BatchNormalization is folded first.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019).

    Example: ``equalize: {exclude: ["*head*"]}``
    """

    compresses: ClassVar[bool] = False

    def apply(self, model: Model) -> list[Change]:
        """Equalize every chain of selected layers."""
        return quantize.equalize(model, self.selects)
