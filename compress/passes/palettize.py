"""Weights as entries of small codebooks."""

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

    A code takes 2 bits for up to 4 entries, 4 bits for up to 16, and 8 above. Levels lie where the weights
    are, so that errors are smaller than with evenly spaced ones; with calibration data, weights that meet
    large inputs count more. The file shrinks, not the running model: ONNX Runtime turns the weights to
    float as it loads them, and runs at float's speed; only embeddings stay codes. ``lookup: at-run``
    keeps all codes in memory, and is many times slower. `finetune` behind it trains the entries. Depthwise
    convolutions suffer most: exclude them, or give them more entries in a step of their own.

    Example: ``palettize: {entries: 16, channels: 8}``
    """

    quantizes: ClassVar[bool] = True

    entries: int = Field(default=16, ge=2, le=256)
    """Entries of a codebook."""
    dimensions: int = Field(default=1, ge=1, le=4)
    """Weights in a row that one code stands for: 256 entries of 4 weights take 2 bits a weight. Fewer where
    the size of a layer wants it."""
    channels: int | None = Field(default=None, ge=1)
    """Output channels that share a codebook, or a part of them that divides; all of a tensor if left out."""
    lookup: Literal["at-load", "at-run"] = "at-load"
    """When entries are looked up: once, into float weights in memory; or at every run, from codes."""

    def apply(self, model: Model) -> list[Change]:
        """Palettize every selected weight."""
        wanted = CodebookFormat(self.entries, self.dimensions, self.channels)
        return quantize.store_palettes(model, self.selects, wanted, decoded=self.lookup == "at-run")
