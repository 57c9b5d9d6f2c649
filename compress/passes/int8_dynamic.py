"""Dynamic quantization: 8-bit weights, and 8-bit activations whose ranges are found at each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from compress import quantize
from compress.changes import Change
from compress.cpu import weight_bits
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Int8Dynamic(Pass, name="int8-dynamic"):
    """Run linear layers and LSTMs on 8-bit integers, with the range of each activation found at each run.

    No calibration data are needed and no outlier is clipped, which suits language and speech models.
    Finding the range costs time at every run, so that small layers may become slower than in float. The
    range is that of the whole batch, so a sample's result depends a little on the other samples.
    Convolutions keep float arithmetic, because they would become many times slower. Their weights,
    embeddings and the weights of other recurrent layers are stored in 8 bits.

    Example: ``int8-dynamic: {exclude: ["*head*"]}``
    """

    quantizes: ClassVar[bool] = True
    needs_opset: ClassVar[int] = 13
    needs_float32: ClassVar[bool] = True

    weight_bits: Literal["auto", 7, 8] = "auto"
    """7 keeps sums of products from saturating on x86 without VNNI; auto decides for this machine."""

    def apply(self, model: Model) -> list[Change]:
        """Fold, let linear layers and LSTMs multiply integers, and store the other weights in 8 bits."""
        return quantize.int8_dynamic(model, self.selects, weight_bits(self.weight_bits))
