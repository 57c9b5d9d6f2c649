"""Weights of linear layers, convolutions, recurrent layers and embeddings in two to four bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.graph.layers import Layer
    from compress.model import Model

FEWEST_WEIGHTS = 32
"""Channels of fewer weights stay in 8 bits: their errors do not average out."""
TABLE_BLOCK = 128
"""Weights of an embedding that share a scale, unless 4 bits want fewer."""


class Int4Weights(Pass, name="int4-weights"):
    """Store weights as 4-bit integers in groups with one scale each; activations stay float.

    Files shrink 6 to 8 times and a language model decodes as much faster as it reads fewer bytes.
    Large batches gain no speed. With calibration data GPTQ rounds each weight so that the rest
    makes up for its error and for those of the layers before it, which loses about half as much as
    rounding to the nearest; give ten rows of inputs (tokens, pixels) for each feature of a layer.
    It runs the calibration data twice and keeps what flows between layers in temporary files. Left in
    8 bits are embeddings and classifiers tied to them, depthwise convolutions and all layers with
    fewer than 32 weights a channel, which 4 bits would ruin. Scales, and tables and matrices that are
    no weights of layers, go to float16. Small convolutional networks can lose accuracy all the same: compare.

    Example: ``int4-weights: {group_size: 128}``
    """

    quantizes: ClassVar[bool] = True

    bits: Literal[2, 3, 4, 8] = 4
    """Bits of a weight. Three are stored in four, and so are two outside of the runtime's kernels; two
    lose much accuracy on most networks."""
    group_size: Literal[16, 32, 64, 128, 256, "channel"] = 32
    """Weights that share a scale; smaller is more accurate and larger on disk."""
    solver: Literal["rtn", "hqq", "gptq", "awq"] | None = None
    """Round to the nearest; give up on outliers (HQQ, without data); feed errors forward (GPTQ); or scale up
    what large inputs meet (AWQ, at one multiplication more before linear layers). Left out, it is gptq with
    calibration data and rtn without. Rounded in any case: layers with fewer rows of inputs than features,
    and recurrent layers whose states the graph does not give out."""
    symmetric: bool | None = None
    """Zero point in the middle of the range; otherwise each group stores its own. Left out, convolutions of
    fewer than 8 bits store them; linear layers run faster without, and others lose nothing."""
    clip: Literal["minmax", "mse"] = "mse"
    """Range of a group: its extremes, or the one with the least squared error. HQQ searches its own."""
    operators: Literal["onnxruntime", "expanded", "standard"] = "onnxruntime"
    """Integer kernels of ONNX Runtime where it has them; weights that become float as the model is loaded,
    at float's speed; or DequantizeLinear of the standard."""
    embedding_bits: Literal[4, 8] = 8
    """Bits of embedding tables, and of a classifier that is the same table."""

    def apply(self, model: Model) -> list[Change]:
        """Store every selected weight in few bits."""
        from compress.quantize.solvers import Rule, solutions
        from compress.quantize.weight_only import plans, store, store_halves

        found, changes = plans(
            model.graph,
            lambda layer: self.selects(*layer.names),
            self._precision,
            self.operators,
        )
        changes += store_halves(model.graph, found, self.selects)
        solver = self.solver or ("gptq" if model.calibration else "rtn")
        for plan, solution in solutions(model, found, Rule(solver, self.symmetric, self.clip)):
            change = store(model.graph, plan, solution.quantized, self.operators)
            changes.append(replace(change, action=change.action and f"{change.action}, {solution.story}"))
        return changes

    def _precision(self, readers: Sequence[Layer]) -> tuple[int, int | None]:
        group_size = None if self.group_size == "channel" else self.group_size
        weight, out_axis = readers[0].array, readers[0].out_axis
        if any(layer.in_axis is None for layer in readers):
            coarse = self.embedding_bits == 8 or group_size is None
            return self.embedding_bits, TABLE_BLOCK if coarse else group_size
        return self.bits if weight.size // weight.shape[out_axis] >= FEWEST_WEIGHTS else 8, group_size
