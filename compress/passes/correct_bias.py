"""Empirical bias correction: what quantization moved the means of outputs by is taken off the biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class CorrectBias(Pass, name="correct-bias"):
    """Take the shift that rounding gave to the mean of each output channel off the biases.

    It follows a pass that quantizes and compares with the original on the calibration data, layer after
    layer, so that each sees the inputs that the corrected ones before it give: a sweep over part of the
    data for each layer on the longest way through the network. File and speed stay the same. It gains
    where ranges cut values off or weights have few bits, and little else. Layers without a bias, and
    those that an earlier pass scaled, stay.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019),
    section 4.2, in its empirical form.

    Example: ``variants: {small: [int8-static: {calibration: mse}, correct-bias]}``
    """

    needs_float: ClassVar[bool] = False
    needs_quantized: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    def apply(self, model: Model) -> list[Change]:
        """Correct the biases of selected layers; undo it if the outputs do not come closer."""
        return quantize.correct_bias(model, self.selects)
