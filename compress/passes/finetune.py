"""Further training of the float weights of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compress import train
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Finetune(train.Training, Pass, name="finetune"):
    """Train the weights further: on labels, to imitate the original, or both.

    This recovers accuracy after pruning, sparsity, low rank or palettes, whose codebook entries it trains.
    Weights that are stored as integers stay as they are. The pass needs a few hundred examples or more,
    and the time to run them forwards and backwards through the graph. Labels come with the calibration
    data as ``(inputs, labels)``. The outputs of the original are imitated too, or alone where there are no
    labels. Too high a learning rate destroys what the network has learnt, so the weights that do best on
    held-out data are kept, those before training included. Control flow, and operators without a torch
    function, are refused.

    Example: ``finetune: {epochs: 20, distill: kl, learning_rate: 0.001}``
    """

    needs_float: ClassVar[bool] = False
    compresses: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = True

    def apply(self, model: Model) -> list[Change]:
        """Train the weights that `include` and `exclude` choose, in place."""
        return train.finetune(model, self.selects, train.Training.of(self))
