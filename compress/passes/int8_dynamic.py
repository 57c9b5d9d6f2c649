"""Weights in eight bits, activations in eight bits whose ranges are found as the model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from compress import quantize
from compress.changes import Change
from compress.cpu import weight_bits
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Int8Dynamic(Pass, name="int8-dynamic"):
    """Run linear layers and LSTMs on 8-bit integers, each activation in the range it has at that run.

    No calibration data are needed, and no outlier is ever cut off, which suits language and speech models.
    Finding the range costs time at every run: small layers may become slower than in float. The range
    is that of the whole batch, so that a sample's result depends a little on the others. Convolutions,
    for which this is many times slower, keep float arithmetic; their weights, embeddings and those of
    other recurrent layers are stored in 8 bits.

    Example: ``int8-dynamic: {exclude: ["*head*"]}``
    """

    quantizes: ClassVar[bool] = True

    weight_bits: Literal["auto", 7, 8] = "auto"
    """7 keeps sums of products from saturating on x86 without VNNI; auto looks at this machine."""

    def apply(self, model: Model) -> list[Change]:
        """Fold, let linear layers and LSTMs multiply integers, and store the other weights in 8 bits."""
        return quantize.int8_dynamic(model, self.selects, weight_bits(self.weight_bits))
