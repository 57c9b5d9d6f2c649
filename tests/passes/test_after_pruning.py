"""What was pruned and trained can still be quantized: no layer collapses (a known failure of other tools)."""

import numpy as np
import pytest

from compress.passes import DropBlocks, Finetune, Int4Weights, Int8Static, PruneChannels

QUANTIZERS = {"int8-static": (Int8Static(), 0.1), "int4-weights": (Int4Weights(group_size=16), 0.3)}
"""Passes, and how far off the outputs may be."""
KINDS = ("channels", "heads", "embedding")


@pytest.fixture(scope="module")
def trained():
    """A function from a model to it with a third fewer channels, trained to imitate it; made once."""
    made = {}

    def make(name, model):
        if name not in made:
            pruned = PruneChannels(ratio=0.34, kinds=KINDS, repair=True)(model)
            made[name] = Finetune(epochs=2, distill=True, held_out=0)(pruned)
        return made[name]

    return make


def off(model, reference):
    """Relative error of the first output over the calibration data."""
    pairs = [(model.run(feeds)[0], reference.run(feeds)[0]) for feeds in reference.batches()]
    got, want = (np.concatenate([array.ravel() for array in part]) for part in zip(*pairs, strict=True))
    assert np.isfinite(got).all()
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantization_keeps_what_training_reached(name, small_model, trained, request):
    small = request.node.callspec.params["small_model"]
    ready = trained(small, small_model)
    assert ready.weight_bytes < 0.85 * small_model.weight_bytes
    quantize, allowed = QUANTIZERS[name]
    assert off(quantize(ready), ready) < allowed


@pytest.mark.parametrize("name", QUANTIZERS)
def test_digits_are_still_told_apart(name, digits, trained):
    def accuracy(model):
        found = [
            (model.run(feeds)[0].argmax(-1) == labels).mean()
            for feeds, labels in model.evaluation.batches(model.graph.inputs)
        ]
        return float(np.mean(found))

    ready = trained("digits", digits)
    assert accuracy(ready) > accuracy(digits) - 0.03
    assert accuracy(QUANTIZERS[name][0](ready)) > accuracy(ready) - 0.02


def test_a_network_with_a_block_less_is_quantized(digits):
    shallow = Finetune(epochs=2, distill=True)(DropBlocks()(digits))
    assert off(Int8Static()(shallow), shallow) < 0.1
