"""Weights and activations in eight bits, with ranges from calibration data."""

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
    of activations come from calibration data, read in one stream. Networks whose activations have
    rare huge values lose accuracy: compare, and exclude the layers that lose. BatchNormalization is
    folded first. Embeddings, recurrent and other weights without an integer kernel are stored in 8 bits.

    Example: ``int8-static: {calibration: mse, exclude: ["*classifier*"]}``
    """

    quantizes: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    calibration: Literal["minmax", "moving-average", "percentile", "entropy", "mse"] = "minmax"
    """How a range is chosen: the extremes, their average over batches, or from an activation's histogram."""
    percentile: float = Field(default=99.99, gt=0, le=100)
    """Share of the values within the range, in percent, for that calibration."""
    activation_bits: Literal[8, 16] = 8
    """16 is for accelerators that multiply 16 by 8 bits; ONNX Runtime's CPU kernels then compute in float."""
    symmetric: bool = False
    """Whether activations are signed with zero point 0, for accelerators that want it; a ReLU loses half."""
    weight_bits: Literal["auto", 7, 8] = "auto"
    """7 keeps sums of products from saturating on x86 without VNNI; auto looks at this machine."""
    per_channel: bool = True
    """Whether every output channel of a weight has a scale of its own, or the whole weight one."""
    rounding: Literal["nearest", "gptq", "learned"] = "nearest"
    """gptq lets the errors of a weight make up for each other on the inputs of the calibration data; learned
    tries AdaRound as well, for minutes, and keeps what is better layer by layer."""
    store_others: bool = True
    """Whether weights that no integer kernel takes are stored in 8 bits all the same."""

    def apply(self, model: Model) -> list[Change]:
        """Fold, observe the activations, and put Q/DQ pairs around what runs in integers."""
        return quantize.int8_static(
            model,
            self.selects,
            quantize.Activations(self.calibration, self.percentile, self.activation_bits, self.symmetric),
            weight_bits=weight_bits(self.weight_bits),
            per_channel=self.per_channel,
            rounding=self.rounding,
            store_others=self.store_others,
        )
