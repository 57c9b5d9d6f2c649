"""Weights, or the whole computation, in a floating-point format of 16 or 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from compress import quantize
from compress.changes import Change
from compress.numerics.formats import FLOATS
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class FloatWeights(Pass, name="float-weights"):
    """Store weights in floating point of 16 or 8 bits: half the size at almost no loss, or a quarter.

    With ``compute: float32`` a Cast widens every weight, which any runtime can do. The file is smaller and
    runs no faster: ONNX Runtime widens the weights once, as it loads the model. ``compute: float16``
    converts the arithmetic as well, for GPUs and accelerators; inputs and outputs keep their types. CPUs run
    float16 slower than float32. bfloat16 has the range of float32 and three bits less precision than
    float16. float8e4m3 has one scale for each weight tensor. Its error is three times that of
    `integer-weights` with 8 bits, at the same size, so it is for comparison and for accelerators that
    require it.

    Example: ``float-weights: {format: bfloat16}``
    """

    quantizes: ClassVar[bool] = True

    format: Literal["float16", "bfloat16", "float8e4m3"] = "float16"
    """What weights are stored in."""
    compute: Literal["float32", "float16"] = "float32"
    """The precision of the arithmetic."""

    @model_validator(mode="after")
    def _one_type(self) -> Self:
        if self.compute == "float16" and self.format != "float16":
            raise ValueError("arithmetic in float16 reads weights in float16; leave 'format' out")
        return self

    def least_opset(self) -> int:
        """Return the operator set that has the types of the weights."""
        return {"float16": 0, "bfloat16": 13, "float8e4m3": 19}[self.format]

    def apply(self, model: Model) -> list[Change]:
        """Convert every selected weight, or the graph."""
        if self.compute == "float16":
            return quantize.compute_in_float16(model, self.selects)
        return quantize.store_float_weights(model, self.selects, FLOATS[self.format])


class Float16(FloatWeights, name="float16"):
    """Store weights, or compute, in float16.

    A short name for ``float-weights: {format: float16}``; every other setting can be given.

    Example: ``float16: {compute: float16}``
    """

    format: Literal["float16"] = "float16"
    """What weights are stored in."""
