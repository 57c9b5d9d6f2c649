"""Prices: what the nodes of a graph cost in multiply-accumulates, bytes and joules."""

import numpy as np
import pytest

import compress
from compress.errors import HardwareError
from compress.prune.price import price, prices

BODY = "{ [first] a = MatMul(x, w1)  r = Relu(a)  [second] y = MatMul(r, w2)  }"
TIED = "{ [first] a = MatMul(x, w1)  [again] y = MatMul(a, w1)  }"


@pytest.fixture
def model(build):
    weights = {"w1": np.ones((4, 8), np.float32), "w2": np.ones((8, 3), np.float32)}
    return compress.load(build(f"net (float[N,4] x) => (float[N,3] y) {BODY}", **weights))


def test_macs_follow_the_shapes(model):
    found = prices(model, "macs", "cpu", {"x": (5, 4)})
    assert found["first"] == 5 * 4 * 8
    assert found["second"] == 5 * 8 * 3
    assert price(model, "macs", "cpu", {"x": (5, 4)}) == 5 * (4 * 8 + 8 * 3)


def test_bytes_are_those_of_the_first_reader(model, build):
    assert prices(model, "weight-bytes", "cpu", {}) == {"first": 4 * 8 * 4, "second": 8 * 3 * 4}
    tied = build(f"net (float[N,4] x) => (float[N,4] y) {TIED}", w1=np.ones((4, 4), np.float32))
    assert prices(compress.load(tied), "weight-bytes", "cpu", {}) == {"first": 64}


def test_energy_is_the_estimators(model):
    shapes = {"x": (5, 4)}
    whole = price(model, "energy", "eyeriss-v1", shapes)
    layers = compress.estimate(model, "eyeriss-v1", shapes=shapes).layers
    assert whole == pytest.approx(sum(layer.cost.energy_joules for layer in layers))
    assert whole > 0
    assert price(model, "energy", "gap9", shapes) > 0  # where the network runs once it is quantized
    with pytest.raises(HardwareError, match="no-such-device"):
        prices(model, "energy", "no-such-device", shapes)
