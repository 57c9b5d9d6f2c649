"""Eight bits without settings: integer arithmetic where it agrees with the original and runs faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Int8(Pass, name="int8"):
    """Quantize to 8 bits so that the network keeps its accuracy and runs no slower, whatever it is.

    Several ways are measured on calibration data held back from calibration: integers in ranges from
    calibration, of two kinds; integers in ranges found at each run; one for convolutions and the other
    for linear and recurrent layers; 8-bit weights in the runtime's blocked kernels; 8-bit weights that
    become float as the model is loaded. Weights are rounded by GPTQ. Where integers agree too little
    with the original, smoothing and bias correction are tried, and the layers that add most noise to the
    outputs go back to 8-bit weights. The fastest way that agrees well enough wins, and the account says
    what the others measured. Files shrink 3.5 to 4 times; they shrink to half, with weights of 16 bits,
    where 8 bits stay more than 4 dB below what is wanted, and the account says so. Speed is measured on one
    thread of this machine: run it on the kind that will serve. Where two ways are about as fast, another
    run may choose the other.

    Example: ``variants: {small: [int8]}``
    """

    quantizes: ClassVar[bool] = True
    needs_opset: ClassVar[int] = 13
    needs_float32: ClassVar[bool] = True

    min_snr_db: float = Field(default=28.0, gt=0)
    """Signal-to-noise ratio against the original that is good enough; 27 dB are a cosine of .999.
    Where nothing faster than the original reaches it, 4 dB less will do for what is faster."""

    def apply(self, model: Model) -> list[Change]:
        """Try, measure, and keep the best."""
        return quantize.int8(model, self.selects, self.min_snr_db)
