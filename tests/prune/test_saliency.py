"""Importance of channels, one group at a time, against sums that are done by hand."""

import numpy as np
import onnx_ir as ir
import pytest

from compress.data import Data
from compress.errors import DataError
from compress.model import Model
from compress.prune.coupling import Coupling
from compress.prune.saliency import importance, shares_of_weights

BODY = """{
  [first] a = Conv(x, w1)  n = BatchNormalization(a, scale, shift, mean, variance)  r = Relu(n)
  [second] b = Conv(r, w2)  p = GlobalAveragePool(b)  y = Flatten(p)
}"""


@pytest.fixture
def weights(normal):
    ones = np.ones(4, np.float32)
    return {
        "w1": normal(4, 2, 3, 3),
        "w2": normal(3, 4, 1, 1),
        "scale": np.array([0.1, 2.0, 0.5, 1.0], np.float32),
        "shift": 0 * ones,
        "mean": 0 * ones,
        "variance": ones,
    }


@pytest.fixture
def model(build, normal, weights):
    proto = build(f"net (float[N,2,6,6] x) => (float[N,3] y) {BODY}", **weights)
    return Model(ir.from_proto(proto), calibration=Data([normal(8, 2, 6, 6) for _ in range(2)]))


def groups(model):
    return [group for group in Coupling(model.ir).groups if not group.obstacle]


def test_magnitude_adds_energies_of_equal_mean(model, weights):
    kind, (scores,) = importance("magnitude", model, groups(model), seed=0)
    parts = [np.square(weights["w1"]).sum((1, 2, 3)), np.square(weights["w2"]).sum((0, 2, 3))]
    assert kind == "magnitude"
    np.testing.assert_allclose(scores, np.sqrt(sum(part / part.mean() for part in parts) / 2), rtol=1e-6)


def test_scales_of_normalization_rank_channels(model, weights):
    _, (scores,) = importance("batch-norm", model, groups(model), seed=0)
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(weights["scale"]))


def test_activation_counts_what_the_consumer_reads(model, weights):
    _, (scores,) = importance("activation", model, groups(model), seed=0)
    probe = model.copy()
    read = next(node for node in probe.graph if node.op_type == "Relu").outputs[0]
    probe.graph.outputs.append(read)
    inputs = sum(np.square(probe.run(feeds)[1]).sum((0, 2, 3)) for feeds in model.batches())
    energies = inputs * np.square(weights["w2"]).sum((0, 2, 3))
    np.testing.assert_allclose(scores, np.sqrt(energies / energies.mean()), rtol=1e-4)


def test_random_scores_depend_on_the_seed_alone(model):
    (one,), (same,), (other,) = (importance("random", model, groups(model), seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_without_data_auto_is_magnitude(model):
    assert importance("auto", model, groups(model), seed=0)[0] == "fisher"
    model.calibration = None
    assert importance("auto", model, groups(model), seed=0)[0] == "magnitude"
    with pytest.raises(DataError, match="calibration data"):
        importance("activation", model, groups(model), seed=0)


def test_a_channel_saves_its_share_of_every_layer_it_runs_through(model):
    (saved,) = shares_of_weights(groups(model), {"first": 8.0, "second": 2.0})
    np.testing.assert_allclose(saved, np.full(4, 8 / 4 + 2 / 4))
