"""Static quantization: 8-bit weights and activations, with ranges from calibration data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.cpu import weight_bits
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Int8Static(Pass, name="int8-static"):
    """Run convolutions and linear layers on 8-bit integers, activations included.

    Files shrink 4 times, and integer kernels run faster where the processor has them. The ranges
    of activations come from calibration data, read batch by batch. Five ways to choose them are tried on the
    whole network, and the one whose outputs agree best with the original's is kept: rare huge values decide
    the outputs of some networks, and ruin others. Where the agreement stays low, exclude the layers that add
    most noise. BatchNormalization is folded first. Which layers are computed in integers is read back from
    the graph that ONNX Runtime optimizes; what it would compute in float stays in float, and the record says
    so. Embeddings, recurrent weights and others without an integer kernel are stored in 8 bits.

    Example: ``int8-static: {calibration: mse, exclude: ["*classifier*"]}``
    """

    quantizes: ClassVar[bool] = True
    needs_float32: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    calibration: Literal["auto", "minmax", "moving-average", "percentile", "entropy", "mse"] = "auto"
    """How a range is chosen: the extremes, their moving average over batches, or from a histogram. auto tries
    minmax, percentile (99.99 and 99.9), mse and entropy, and compares outputs on up to four batches."""
    percentile: float = Field(default=99.99, gt=0, le=100)
    """Share of the values within the range, in percent, for ``calibration: percentile``."""
    activation_bits: Literal[8, 16] = 8
    """16 is for accelerators that multiply 16 by 8 bits; ONNX Runtime then computes in float on CPUs."""
    symmetric: bool = False
    """Whether activations are signed with zero point 0, as some accelerators require; a ReLU then uses only
    half of the integers, and ONNX Runtime computes the layer before it in float."""
    weight_bits: Literal["auto", 4, 7, 8] = "auto"
    """7 keeps sums of products from saturating on x86 without VNNI; auto decides for this machine. Weights of
    4 bits are stored in bytes, because no kernel reads them packed; `compress pack` packs them."""
    per_channel: bool = True
    """Whether every output channel of a weight has its own scale, or the whole weight one."""
    rounding: Literal["nearest", "gptq", "learned", "blocks"] = "nearest"
    """gptq rounds so that the errors within a weight compensate for each other on the calibration data;
    learned adds AdaRound, which takes minutes, and keeps the better of both for each layer; blocks learns how
    the weights of a residual block are rounded together, for the block's outputs (BRECQ), which takes minutes
    too, is most accurate at 4 bits, and is kept where it helps on calibration data held out."""
    store_others: bool = True
    """Whether weights without an integer kernel are stored in 8 bits too."""

    def least_opset(self) -> int:
        """Return the operator set that has the types of activations and scales for channels."""
        return 13 if self.activation_bits == 8 else 21

    def apply(self, model: Model) -> list[Change]:
        """Fold, observe the activations, and put Q/DQ pairs around what runs in integers."""
        tried = quantize.TRIED if self.calibration == "auto" else ((self.calibration, self.percentile),)
        return quantize.int8_static(
            model,
            self.selects,
            [
                quantize.Activations(calibration, percentile, self.activation_bits, self.symmetric)
                for calibration, percentile in tried
            ],
            weight_bits=weight_bits(self.weight_bits),
            per_channel=self.per_channel,
            rounding=self.rounding,
            store_others=self.store_others,
        )
