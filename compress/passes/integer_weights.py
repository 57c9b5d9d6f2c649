"""Weights of linear layers, convolutions, recurrent layers and embeddings in two to eight bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


def _refuse_other_bits(cls: type[IntegerWeights], bits: Any) -> Any:
    own = cls.model_fields["bits"].default
    if bits != own:
        raise ValueError(f"{cls.name} has {own} bits; write integer-weights: {{bits: {bits}}}")
    return bits


class IntegerWeights(Pass, name="integer-weights"):
    """Store weights as integers in groups with one scale each; activations stay float.

    Files of 4 bits are 6 to 8 times smaller, and a language model decodes as much faster as it reads
    fewer bytes; large batches gain no speed. With calibration data, GPTQ rounds the weights so that later
    ones compensate for the errors of earlier ones, in the layer and in the layers before it. This halves
    the loss of rounding to the nearest. It needs about ten rows of inputs (tokens, pixels) for each feature
    of a layer, runs the calibration data twice, and keeps the values between layers in temporary files.

    Some weights keep 8 bits, because fewer would ruin them: embeddings and classifiers tied to them,
    depthwise convolutions, and all layers with fewer than 32 weights in a channel. Weights in the bodies of
    If, Loop and Scan have 8 bits or stay float. Small convolutional networks may still lose accuracy at
    4 bits: compare. Two bits lose much accuracy on most networks.

    Example: ``integer-weights: {bits: 4, group_size: 128}``
    """

    quantizes: ClassVar[bool] = True

    bits: Literal[2, 3, 4, 8] = 4
    """Bits of a weight. Three are stored in four, because ONNX Runtime has no CPU kernel for three. Two are
    stored in four outside of the runtime's blocked kernels."""
    group_size: Literal[16, 32, 64, 128, 256, "channel"] | None = None
    """Weights that share a scale; smaller is more accurate and larger on disk. Left out, it is 32, or 128
    with 8 bits."""
    solver: Literal["rtn", "hqq", "gptq", "awq"] | None = None
    """rtn rounds to the nearest. hqq fits ranges that sacrifice outliers, without data. gptq feeds errors
    forward. awq scales up the weights that meet large inputs, at the cost of one multiplication before
    linear layers. Left out, it is gptq with calibration data and rtn without. Rounded to the nearest in
    any case are weights of 8 bits, layers with fewer rows of inputs than features, and recurrent layers
    whose states are no outputs of their node."""
    symmetric: bool | None = None
    """Whether zero points are the middle of the range; otherwise each group stores its own. Left out,
    only convolutions of fewer than 8 bits store zero points; linear layers run faster without."""
    clip: Literal["minmax", "mse"] | None = None
    """Range of a group: its extremes, or the range of the least squared error. Left out, it is mse, or minmax
    with 8 bits. hqq finds its own ranges."""
    operators: Literal["onnxruntime", "expanded", "standard"] = "onnxruntime"
    """Integer kernels of ONNX Runtime where it has them; weights that become float as the model is loaded,
    at float's speed; or DequantizeLinear of the standard."""
    embedding_bits: Literal[4, 8] = 8
    """Bits of embedding tables, and of a classifier that is the same table."""
    other_weights: Literal["float16", "float32"] | None = None
    """How tables, matrices and biases that belong to no layer are stored: in float16 where this changes no
    number by more than 0.1 %, or in float32. Left out, it is float16, or float32 with 8 bits."""

    def least_opset(self) -> int:
        """Return the operator set that has the types of the weights."""
        return 13 if self.bits == 8 else 21

    def apply(self, model: Model) -> list[Change]:
        """Store every selected weight as integers."""
        fine = self.bits == 8
        group_size = self.group_size or (128 if fine else 32)
        precision = quantize.Precision(
            self.bits,
            None if group_size == "channel" else group_size,
            self.symmetric,
            self.clip or ("minmax" if fine else "mse"),
            table_bits=self.embedding_bits,
        )
        return quantize.store_integer_weights(
            model,
            self.selects,
            precision,
            solver=self.solver or ("gptq" if model.calibration else "rtn"),
            operators=self.operators,
            halves=(self.other_weights or ("float32" if fine else "float16")) == "float16",
        )

    def settings(self) -> dict[str, Any]:
        """The bits, and the settings that differ from their defaults."""
        return {"bits": self.bits} | super().settings()

    def __repr__(self) -> str:
        return IntegerWeights.name + super().__repr__().removeprefix(self.name)

    __str__ = __repr__


class Int4Weights(IntegerWeights, name="int4-weights"):
    """Store weights as 4-bit integers in groups with one scale each; activations stay float.

    A short name for ``integer-weights: {bits: 4}``; every other setting can be given.

    Example: ``int4-weights: {group_size: 128}``
    """

    bits: Literal[4] = 4
    """Bits of a weight."""

    _only_its_bits = field_validator("bits", mode="before")(_refuse_other_bits)


class Int8Weights(IntegerWeights, name="int8-weights"):
    """Store weights as 8-bit integers; activations stay float.

    A short name for ``integer-weights: {bits: 8}``; every other setting can be given. Files shrink nearly
    4 times at almost no loss on any network, without calibration data. Linear layers and embeddings run in
    the runtime's own 8-bit kernels; the weights of convolutions and recurrent layers become float as the
    model is loaded, so that only the file gets smaller there: see `int8-static`.

    Example: ``int8-weights: {exclude: ["*embeddings*"]}``
    """

    bits: Literal[8] = 8
    """Bits of a weight."""

    _only_its_bits = field_validator("bits", mode="before")(_refuse_other_bits)
