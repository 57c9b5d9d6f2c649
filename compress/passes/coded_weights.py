"""Weights in integers that are short once entropy coded."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class CodedWeights(Pass, name="coded-weights"):
    """Store weights as integers that take `rate` bits each once they are entropy coded.

    The integers are for ``compress pack``; in the ONNX file they take 8 bits, or 4 where they fit. At one
    size they are closer to the original than those of `int8-weights` and `int4-weights`: steps follow what
    an error costs at the outputs, in every layer alike, and rounding prefers short codes. With
    calibration data, costs come from gradients and inputs, and errors are fed forward as in GPTQ; without
    data, or for graphs that torch cannot run, every layer gets the same relative error. 5 bits are hardly
    told from the original, 3 suit most networks, and below 2 accuracy goes quickly. `fold` and
    `prune-channels` before it make coded files smaller still.

    Example: ``coded-weights: {rate: 3}``
    """

    quantizes: ClassVar[bool] = True

    rate: float = Field(default=4.0, gt=0, le=7)
    """Bits a weight, as the entropy of each tensor's integers with its scales; a mean over all layers."""
    operators: Literal["onnxruntime", "expanded", "standard"] = "onnxruntime"
    """Integer kernels of ONNX Runtime where it has them; weights that become float as the model is loaded,
    at float's speed; or DequantizeLinear of the standard."""

    def apply(self, model: Model) -> list[Change]:
        """Store every selected weight."""
        return quantize.store_coded_weights(model, self.selects, self.rate, self.operators)
