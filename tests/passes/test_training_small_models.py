"""Pruned, trained, then quantized: none of the small models collapses on the way."""

from __future__ import annotations

import numpy as np

from compress.model import Model
from compress.passes.finetune import Finetune
from compress.passes.int8_static import Int8Static
from compress.passes.prune_channels import PruneChannels
from compress.passes.qat import Qat

BATCHES = 4


def _noise(model: Model, original: Model) -> float:
    """Return the power of the outputs' error over that of the outputs."""
    error = power = 0.0
    for feeds in original.batches():
        wanted = original.run(feeds)[0]
        error += float(np.square(model.run(feeds)[0] - wanted).sum())
        power += float(np.square(wanted).sum())
    return error / power


def test_a_pruned_and_trained_model_can_be_quantized(small_model: Model) -> None:
    original = small_model.copy()
    assert original.calibration is not None
    original.calibration = original.calibration.limited(BATCHES)
    pruned = PruneChannels(ratio=0.3, kinds=("channels", "heads", "embedding"))(original)
    tuned = Finetune(epochs=4, batch_size=0, held_out=0, learning_rate=1e-3)(pruned)
    assert _noise(tuned, original) < _noise(pruned, original)
    for quantize in (Int8Static(), Qat(weight_bits=4, epochs=3, batch_size=0, learning_rate=1e-3)):
        assert _noise(quantize(tuned), original) < 1.2 * _noise(tuned, original) + 0.02, quantize
