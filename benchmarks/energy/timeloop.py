"""DRAM words of one convolution on the designs that Timeloop's exercises publish."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compress.estimator.mapping import Crossings, Loops, crossings

CONVOLUTION = Loops(m=32, c=3, out=(112, 112), kernel=(3, 3), stride=(2, 2))
"""3 channels to 32, 112 x 112 outputs, 3 x 3 kernel, stride 2."""


@dataclass(frozen=True)
class Design:
    """A design, the tile of its published mapping and the DRAM words that Timeloop reports for it."""

    name: str
    rows: int
    columns: int
    published: int

    @property
    def passes(self) -> Crossings:
        return crossings(CONVOLUTION, 1, self.rows, self.columns, 32, 3, "output-stationary")

    def words(self) -> float:
        """Return the words that our formula gives for that tile."""
        return math.fsum(n * p for n, p in zip(CONVOLUTION.elements, self.passes, strict=True))


DESIGNS = (
    Design("eyeriss_like", 14, 56, 572_528),
    Design("simba_like", 112, 112, 554_147),
    Design("simple output-stationary", 14, 56, 572_528),
    Design("simple weight-stationary", 112, 112, 554_147),
)
