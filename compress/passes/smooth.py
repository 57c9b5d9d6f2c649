"""SmoothQuant, for linear layers, convolutions and recurrent ones: outliers move into the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Smooth(Pass, name="smooth"):
    """Divide the inputs of layers by a scale per channel, and multiply their weights by it.

    The outputs stay the same, and an input whose channels differ by orders of magnitude becomes easy to
    quantize with one scale: put this pass before `int8-static`. It takes linear layers, the inputs of
    recurrent ones, and convolutions, depthwise ones included, but no other grouped ones. The strength, which
    is the share of the range that moves into the weights, is searched for every input. The scales are divided
    out of the operator that makes the input (a layer, a normalization or a Mul; ReLU and pooling may follow
    it), if these layers alone read it. Elsewhere, as after a ReLU6 or a residual sum, a Mul is inserted at a
    small cost in time; before a convolution only if this lowers its error to a quarter. Not every network
    gains: EfficientNet-Lite0 agrees with its original to 21 dB with and without. BatchNormalization is folded
    first.

    Xiao et al., "SmoothQuant" (2022).

    Example: ``smooth: {strength: 0.8}``
    """

    needs_calibration: ClassVar[bool] = True
    compresses: ClassVar[bool] = False

    strength: float | None = Field(default=None, ge=0, le=1)
    """Share of the range that moves to the weights; searched for each input if left out."""

    def apply(self, model: Model) -> list[Change]:
        """Smooth every input of selected layers."""
        return quantize.smooth(model, self.selects, self.strength)
