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
    fewer bytes; large batches gain no speed. With calibration data GPTQ rounds each weight so that the
    rest makes up for its error and for those of the layers before it, which loses about half as much as
    rounding to the nearest; give ten rows of inputs (tokens, pixels) for each feature of a layer.
    It runs the calibration data twice and keeps what flows between layers in temporary files.

    Below 8 bits, some weights keep 8, because fewer would ruin them: embeddings and classifiers tied to
    them, depthwise convolutions, and all layers with fewer than 32 weights a channel. Weights in the
    bodies of If, Loop and Scan have 8 bits or stay float. Small convolutional networks can lose accuracy
    at 4 bits all the same: compare. Two bits lose much accuracy on most networks.

    Example: ``integer-weights: {bits: 4, group_size: 128}``
    """

    quantizes: ClassVar[bool] = True

    bits: Literal[2, 3, 4, 8] = 4
    """Bits of a weight. Three are stored in four, for no kernel of ONNX Runtime reads three on a CPU, and two
    are stored in four outside of the runtime's blocked kernels."""
    group_size: Literal[16, 32, 64, 128, 256, "channel"] | None = None
    """Weights that share a scale; smaller is more accurate and larger on disk. Left out, it is 32, or 128
    with 8 bits."""
    solver: Literal["rtn", "hqq", "gptq", "awq"] | None = None
    """Round to the nearest (rtn); give up on outliers (HQQ, without data); feed errors forward (GPTQ); or
    scale up what large inputs meet (AWQ, at one multiplication more before linear layers). Left out, it is
    gptq with calibration data and rtn without. Always rounded are weights of 8 bits, layers with fewer rows
    of inputs than features, and recurrent layers whose states the graph does not give out."""
    symmetric: bool | None = None
    """Zero point in the middle of the range; otherwise each group stores its own. Left out, convolutions of
    fewer than 8 bits store them; linear layers run faster without, and others lose nothing."""
    clip: Literal["minmax", "mse"] | None = None
    """Range of a group: its extremes, or the one with the least squared error. Left out, it is mse, or minmax
    with 8 bits. HQQ searches its own."""
    operators: Literal["onnxruntime", "expanded", "standard"] = "onnxruntime"
    """Integer kernels of ONNX Runtime where it has them; weights that become float as the model is loaded,
    at float's speed; or DequantizeLinear of the standard."""
    embedding_bits: Literal[4, 8] = 8
    """Bits of embedding tables, and of a classifier that is the same table."""
    other_weights: Literal["float16", "float32"] | None = None
    """Tables, matrices and biases that are no weights of layers: float16 where that moves no number by 0.1 %,
    or float32 as they are. Left out, it is float16, or float32 with 8 bits."""

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
