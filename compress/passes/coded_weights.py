"""Weights as integers that take few bits once they are entropy coded."""

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

    ``compress pack`` codes them; in the ONNX file they take 8 bits, or 4 where they fit. At the same size
    they are closer to the original than the weights of `int8-weights` and `int4-weights`, because the step
    of each layer follows what an error costs at the outputs, and rounding prefers short codes. With
    calibration data, the costs come from gradients and inputs, and errors are fed forward as in GPTQ.
    Without data, or for graphs that torch cannot run, every layer gets the same relative error. With 5 bits
    outputs hardly change, 3 bits suit most networks, and below 2 bits accuracy falls quickly. `fold` and
    `prune-channels` before this pass make coded files smaller still.

    Example: ``coded-weights: {rate: 3}``
    """

    quantizes: ClassVar[bool] = True
    needs_opset: ClassVar[int] = 21

    rate: float = Field(default=4.0, gt=0, le=7)
    """Bits of a weight on average over all layers: the entropy of the integers, and the scales."""
    operators: Literal["onnxruntime", "expanded", "standard"] = "onnxruntime"
    """Integer kernels of ONNX Runtime where it has them; weights that become float as the model is loaded,
    at float's speed; or DequantizeLinear of the standard."""

    def apply(self, model: Model) -> list[Change]:
        """Store every selected weight."""
        return quantize.store_coded_weights(model, self.selects, self.rate, self.operators)
