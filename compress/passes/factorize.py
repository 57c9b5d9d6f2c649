"""Low-rank factorization: one layer becomes two thinner ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from compress import prune
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Factorize(Pass, name="factorize"):
    """Replace linear layers and convolutions by two thinner ones in a row.

    The rank of every layer is chosen so that the outputs change least on the calibration data. The pass
    saves bytes and multiplications alike, most on wide linear layers. Small convolutional networks gain
    little, and every factored layer is one more operator to run. `finetune` recovers accuracy.

    Example: ``factorize: {ratio: 0.3, include: ["*mlp*"]}``
    """

    ratio: float = Field(default=0.3, gt=0, lt=1)
    """Fraction of the selected layers' weights that is removed, over all of them together."""
    error: float | None = Field(default=None, gt=0, lt=1)
    """Largest relative error of each layer's outputs; replaces the ratio."""
    importance: Literal["activation", "weight"] = "activation"
    """Whether the error is measured at the outputs on calibration data, or at the weights."""

    def apply(self, model: Model) -> list[Change]:
        """Factor layers in place."""
        return prune.factorize(model, self.selects, **self.own())
