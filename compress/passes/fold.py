"""Constant folding, what scales and shifts channels into weights, dead code."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compress import graph
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Fold(Pass, name="fold"):
    """Compute what is constant, fold what scales and shifts channels into layers, drop dead code.

    That is BatchNormalization behind a layer and before one that pads nothing, Mul, Div, Add and Sub with
    constants, and a Gemm's alpha and beta. The outputs stay the same up to rounding, and runtimes and
    quantizers have less to do. A folded BatchNormalization can no longer be trained, so fine-tune first.
    `int8-static` folds by itself.

    Example: ``variants: {folded: [fold]}``
    """

    accounts: ClassVar[bool] = False
    compresses: ClassVar[bool] = False

    strip: bool = False
    """Whether to leave out what a runtime finds by itself: types and shapes of inner values, and notes."""

    def apply(self, model: Model) -> list[Change]:
        """Fold the graph in place."""
        return graph.fold_and_account(model.ir, stripped=self.strip)
