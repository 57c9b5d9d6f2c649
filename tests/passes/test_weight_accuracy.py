"""What weights in few bits cost trained networks."""

import numpy as np
import pytest

from compress.diagnose.metrics import measure
from compress.passes import Int4Weights, Int8Weights


def accuracy(model):
    return measure("accuracy", model.run, model.run, model.evaluation.batches(model.graph.inputs))


@pytest.mark.parametrize(
    ("chosen", "points"), [(Int8Weights(), 0.5), (Int4Weights(), 2), (Int4Weights(symmetric=False), 2)]
)
def test_digits(digits, chosen, points):
    small = chosen(digits)
    assert accuracy(small) >= accuracy(digits) - points / 100
    assert small.weight_bytes < 0.3 * digits.weight_bytes


def test_magika_tells_the_same_files_apart(magika):
    feeds = next(magika.batches())
    small = Int8Weights()(magika)
    expected, found = magika.run(feeds)[0], small.run(feeds)[0]
    assert (found.argmax(-1) == expected.argmax(-1)).all()
    assert np.abs(found - expected).max() < 0.05
    assert small.weight_bytes < 0.3 * magika.weight_bytes


@pytest.mark.slow
def test_minilm_keeps_its_embeddings(minilm):
    feeds = next(minilm.batches())
    expected, found = (model.run(feeds)[0] for model in (minilm, Int8Weights()(minilm)))
    cosine = (expected * found).sum(-1) / np.linalg.norm(expected, axis=-1) / np.linalg.norm(found, axis=-1)
    assert cosine.mean() > 0.995
