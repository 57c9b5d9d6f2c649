"""Quantization-aware training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from compress import quantize, train
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Qat(train.Training, Pass, name="qat"):
    """Train with fake quantizers in place, then store the trained weights as integers.

    Fake quantizers round weights and activations while weights and scales are trained, with the
    straight-through estimator. The result is the graph of `int8-static`, or with float activations that
    of `int4-weights`, with trained numbers. It is more accurate than quantizing a trained network, most of
    all below eight bits, and takes a training: data, labels and distillation are those of `finetune`.
    `include` and `exclude` choose what is quantized; all weights are trained. BatchNormalization is folded
    first.

    Example: ``qat: {weight_bits: 4, epochs: 5, distill: true}``
    """

    quantizes: ClassVar[bool] = True
    needs_float32: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    weight_bits: Literal[2, 3, 4, 5, 6, 7, 8] = 8
    """Bits of a weight; it is stored in 4 or 8."""
    activations: bool = True
    """Whether activations are rounded to eight bits as well."""
    group_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale where activations stay float; convolutions have one scale per channel."""
    learn_scales: bool = True
    """Whether scales are trained, or stay as observed before training."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Learning rate at its peak: it rises linearly during the warm-up and then falls to zero as a cosine.
    auto is 0.0003, and 0.00003 for networks with attention."""

    def least_opset(self) -> int:
        """Return the operator set that has the types of the weights."""
        return 13 if self.weight_bits > 4 and self.activations else 21

    def apply(self, model: Model) -> list[Change]:
        """Fold, put fake quantizers in, train, and store integers in their place."""
        return quantize.quantization_aware_training(
            model,
            self.selects,
            train.Training.of(self),
            quantize.Rounding(self.weight_bits, self.activations, self.group_size, self.learn_scales),
        )
