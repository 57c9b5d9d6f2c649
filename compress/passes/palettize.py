"""Weight clustering: weights become entries of small codebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.numerics.formats import CodebookFormat
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Palettize(Pass, name="palettize"):
    """Replace weights by entries of a codebook that k-means finds for each tensor.

    A code takes 2 bits for up to 4 entries, 4 bits for up to 16, and 8 bits above. The entries lie where
    the weights are, so that errors are smaller than with evenly spaced levels. With calibration data,
    weights that meet large inputs count more. The file shrinks, but not the running model: ONNX Runtime
    looks the weights up as it loads them, and runs at the speed of float. Only embeddings stay codes in
    memory. ``lookup: at-run`` keeps all codes in memory, and is many times slower. `finetune` after this
    pass trains the entries. Depthwise convolutions suffer most: exclude them, or palettize them with more
    entries in a second step.

    Example: ``palettize: {entries: 16, channels: 8}``
    """

    quantizes: ClassVar[bool] = True
    needs_opset: ClassVar[int] = 21

    entries: int = Field(default=16, ge=2, le=256)
    """Entries of a codebook."""
    dimensions: int = Field(default=1, ge=1, le=4)
    """Consecutive weights that one code stands for: 256 entries of 4 weights take 2 bits a weight. Where the
    number does not divide a layer's size, the next smaller one that does is used."""
    channels: int | None = Field(default=None, ge=1)
    """Output channels that share a codebook, all of a tensor if left out. Where the number does not divide
    a layer's channels, the next smaller one that does is used."""
    lookup: Literal["at-load", "at-run"] = "at-load"
    """When entries are looked up: once, as the model is loaded, into float weights; or at every run."""

    def apply(self, model: Model) -> list[Change]:
        """Palettize every selected weight."""
        wanted = CodebookFormat(self.entries, self.dimensions, self.channels)
        return quantize.store_palettes(model, self.selects, wanted, decoded=self.lookup == "at-run")
