"""Empirical bias correction: biases compensate for the shift of output means by quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class CorrectBias(Pass, name="correct-bias"):
    """Subtract from each bias the shift that quantization gave to the mean of its output channel.

    The pass follows one that quantizes, and compares with the original on the calibration data. Layers are
    corrected in the order of the graph, so that each is measured on the inputs that the corrected layers
    before it give. This takes a sweep over part of the data for each layer on the longest path through the
    network. File size and speed stay the same. The pass helps where ranges clip values or weights have few
    bits, and hardly elsewhere. Layers without a bias, and layers that an earlier pass scaled, stay as they
    are.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019),
    section 4.2, in its empirical form.

    Example: ``variants: {small: [int8-static: {calibration: mse}, correct-bias]}``
    """

    accounts: ClassVar[bool] = False
    compresses: ClassVar[bool] = False
    needs_float: ClassVar[bool] = False
    needs_quantized: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    def apply(self, model: Model) -> list[Change]:
        """Correct the biases of selected layers; undo it if the outputs do not come closer."""
        return quantize.correct_bias(model, self.selects)
