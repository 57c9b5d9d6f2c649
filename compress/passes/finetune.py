"""Further training of whatever is left of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compress import train
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Finetune(train.Training, Pass, name="finetune"):
    """Train the weights further: on labels, to imitate the original, or both.

    This is what brings accuracy back after pruning, sparsity, low rank or palettes, whose entries it
    trains; integers stay as they are, and what is left of float learns. It needs a few hundred
    examples or more and the time to run them forwards and backwards through the graph. Labels come
    with the calibration data as ``(inputs, labels)``; the original's outputs teach as well, or alone
    where there are no labels. Too high a learning rate destroys what was learnt; what is kept is what
    does best on held-out data, before training or after any epoch. Control flow and operators that
    torch has no function for are refused.

    Example: ``finetune: {epochs: 20, distill: kl, learning_rate: 0.001}``
    """

    needs_float: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = True

    def apply(self, model: Model) -> list[Change]:
        """Train the weights that `include` and `exclude` choose, in place."""
        return train.finetune(model, self.selects, train.Training.of(self))
