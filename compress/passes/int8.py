"""Eight bits without settings: integer arithmetic where it agrees with the original and runs faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.cpu import weight_bits
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model
    from compress.quantize import Aim


ENOUGH_DB = {"accuracy": 28.0, "speed": 18.0}
"""Signal-to-noise ratio that is good enough, by what is preferred."""
INDULGENCE_DB = 4.0
"""Decibels below what is preferred that still do, where nothing closer is faster than the original."""


class Int8(Pass, name="int8"):
    """Quantize to 8 bits so that the network keeps its accuracy and runs no slower, whatever it is.

    Several ways are measured on calibration data held back from calibration: integers in ranges from
    calibration, of four kinds; integers in ranges found at each run; one for convolutions and the other
    for linear and recurrent layers; 8-bit weights in the runtime's blocked kernels; 8-bit weights that
    become float as the model is loaded. Weights are rounded by GPTQ. Where integers agree too little
    with the original, smoothing and bias correction are tried. Then the noise that each layer's integers
    add at the outputs and the time that they save are measured, and a linear program finds which layers
    go back to 8-bit weights and float arithmetic. Where no layers can stay in integers, rounding is learnt
    block by block, and they are looked for again. The fastest way that agrees well enough wins, and the
    account says what the others measured. What was found of each layer, and why it stayed in float, is in
    the `effect` of its record, and as a picture and a table under "What the passes did" in ``report.html``.

    The smallest weights, 2 % of the bytes, stay in float where arithmetic does: rounding them costs most
    and saves least. Weights shrink about 3.5 to 4 times, files a little less, since the graph stays. Where
    no way to use 8 bits keeps what is promised, weights shrink to half, with 16 bits, or the model stays as
    it is, and the report says so. All of it is judged on every fourth calibration batch, which calibrates
    nothing; with fewer than four batches, on the data that calibrate. Speed is measured on one thread of
    this machine, beside the model as it was given: run it on the kind that will serve. Where two ways
    are about as fast, another run may choose the other. After two and a half minutes no further way is
    begun, so that large models end with what was found.

    Example: ``variants: {small: [int8], faster: [{int8: {prefer: speed}}]}``
    """

    quantizes: ClassVar[bool] = True
    needs_opset: ClassVar[int] = 14
    needs_float32: ClassVar[bool] = True

    prefer: Literal["accuracy", "speed"] = "accuracy"
    """What comes first: outputs within 28 dB of the original's, a cosine of .999, or a fast file within
    18 dB, a cosine of .992, which classifiers mostly take and other networks may not."""
    min_snr_db: float | None = Field(default=None, gt=0)
    """Signal-to-noise ratio against the original that is promised, in the place of what `prefer` stands for:
    on samples held out, with 95 % confidence. Without it, 4 dB below what `prefer` stands for will do where
    nothing closer is faster than the original."""
    max_drop: float | None = Field(default=None, ge=0)
    """Points of the metric that may be lost at most, .01 of an accuracy of .92, on the calibration batches
    that are held out. They need labels, (inputs, labels), but for cosine, mse, mae and perplexity."""
    metric: Literal["accuracy", "top5", "cosine", "mse", "mae", "perplexity"] = "accuracy"
    """What `max_drop` is about."""
    weight_bits: Literal["auto", 7, 8] = "auto"
    """Bits of weights beside activations in integers: 7 keeps sums of products from saturating on x86 without
    VNNI; auto decides for this machine. State those of the processor that will serve, 8 for x86 with VNNI
    and for ARM; agreement and speed are measured on this one all the same."""

    def apply(self, model: Model) -> list[Change]:
        """Try, measure, and keep the best."""
        return quantize.int8(model, self.selects, self.aim, weight_bits(self.weight_bits))

    @property
    def aim(self) -> Aim:
        """What is to be kept of the original."""
        enough = self.min_snr_db or ENOUGH_DB[self.prefer]
        return quantize.Aim(
            enough_db=enough,
            least_db=self.min_snr_db or enough - INDULGENCE_DB,
            is_stated=self.min_snr_db is not None,
            max_drop=self.max_drop,
            metric=self.metric,
        )
