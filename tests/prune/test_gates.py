"""Gate derivatives: what gradients say of a channel is what scaling the channel shows."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compress.data import Data
from compress.errors import DataError
from compress.model import Model
from compress.prune import gates
from compress.prune.coupling import Coupling

RESIDUAL = """{
  [first] a = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)
  [second] b = Conv<pads=[1,1,1,1]>(r, w2, b2)  s = Add(r, b)
  [third] c = Conv<pads=[1,1,1,1]>(s, w3, b3)
  p = GlobalAveragePool(c)  f = Flatten(p)  [head] y = Gemm(f, w4, b4)
}"""
SHAPES = {
    "w1": (6, 3, 3, 3),
    "b1": (6,),
    "w2": (6, 6, 3, 3),
    "b2": (6,),
    "w3": (5, 6, 3, 3),
    "b3": (5,),
    "w4": (5, 4),
    "b4": (4,),
}
STEP = 1e-2


@pytest.fixture
def model(build, normal):
    weights = {name: normal(*shape) / 4 for name, shape in SHAPES.items()}
    proto = build(f"net (float[N,3,6,6] x) => (float[N,4] y) {RESIDUAL}", **weights)
    batches = [(normal(8, 3, 6, 6), np.arange(8) % 4) for _ in range(24)]
    return Model(ir.from_proto(proto), calibration=Data(batches))


def groups(model):
    return [group for group in Coupling(model.ir).groups if not group.obstacle]


def scaled(model, names, channel, factor):
    """The model with one channel's makers scaled: rows of kernels, entries of biases."""
    copy = model.copy()
    for name in names:
        value = copy.graph.initializers[name]
        array = np.array(value.const_value.numpy())
        array[channel] *= factor
        value.const_value = ir.tensor(array, name=name)
    return copy


def loss(model, feeds, labels):
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(model.run(feeds)[0]), labels))


def test_taylor_is_the_derivative_of_the_loss(model):
    model.calibration = model.calibration.limited(1)
    ((feeds, labels),) = model.calibration.batches(model.graph.inputs)
    stream, last = groups(model)
    for group, makers, score in zip(
        (stream, last),
        (("w1", "b1", "w2", "b2"), ("w3", "b3")),
        gates.taylor(model, [stream, last]),
        strict=True,
    ):
        for channel in range(group.size):
            low, high = (
                loss(scaled(model, makers, channel, factor), feeds, torch.from_numpy(labels))
                for factor in (1 - STEP, 1 + STEP)
            )
            assert score[channel] == pytest.approx(abs(high - low) / (2 * STEP), rel=0.03, abs=1e-4)


def test_fisher_is_how_far_the_outputs_move(model):
    chosen = groups(model)
    makers = (("w1", "b1", "w2", "b2"), ("w3", "b3"))
    for group, names, score in zip(chosen, makers, gates.fisher(model, chosen), strict=True):
        moved = np.zeros(group.size)
        for channel in range(group.size):
            other = scaled(model, names, channel, 1 - STEP)
            for feeds in model.batches():
                want = model.run(feeds)[0]
                change = np.square((other.run(feeds)[0] - want) / STEP)
                moved[channel] += (change / np.square(want).mean(axis=0)).sum()
        np.testing.assert_allclose(score, np.sqrt(moved / 24), rtol=0.3)


def test_units_of_the_outputs_do_not_decide(build, normal):
    """A detector's output holds pixels beside scores: what is small in numbers counts as much."""
    layers = "[first] a = Conv(x, w1) r = Relu(a) [head] b = Conv(r, w2) y = Mul(b, unit)"
    weights = {"w1": normal(8, 3, 1, 1), "w2": normal(4, 8, 1, 1)}
    batches = [normal(8, 3, 6, 6) for _ in range(8)]

    def scores(*units):
        unit = np.array(units, np.float32).reshape(4, 1, 1)
        proto = build(f"net (float[N,3,6,6] x) => (float[N,4,6,6] y) {{ {layers} }}", unit=unit, **weights)
        model = Model(ir.from_proto(proto), calibration=Data(batches))
        (found,) = gates.fisher(model, groups(model))
        return found

    np.testing.assert_allclose(scores(1000, 1000, 1, 0.2), scores(0.1, 0.01, 1, 100), rtol=1e-3)


def test_heads_without_labels(transformer):
    chosen = groups(transformer)
    found = gates.fisher(transformer, chosen)
    assert [scores.shape for scores in found] == [(group.size,) for group in chosen]
    assert all((scores > 0).all() for scores in found)


def test_recurrent_units(recurrent):
    chosen = groups(recurrent)
    assert all((scores > 0).all() for scores in gates.fisher(recurrent, chosen))


def test_taylor_without_labels_says_what_does_without(model):
    model.calibration = Data(list(model.batches()))
    with pytest.raises(DataError, match="fisher needs no labels"):
        gates.taylor(model, groups(model))
    model.calibration = None
    with pytest.raises(DataError, match="needs calibration data with labels"):
        gates.taylor(model, groups(model))


def test_integers_beside_other_outputs_do_not_count(build, normal):
    text = """g (float[N,6] x) => (float[N,4] y, int64[N,1] best, bool[N,4] big) {
        [one] a = MatMul(x, w1) r = Relu(a) [two] y = MatMul(r, w2)
        best = ArgMax<axis = 1>(y) big = Greater(y, zero) }"""
    numbers = {"w1": normal(6, 8), "w2": normal(8, 4), "zero": np.zeros((), np.float32)}
    model = Model(ir.from_proto(build(text, **numbers)), calibration=Data([normal(16, 6)]))
    (scores,) = gates.fisher(model, groups(model))
    assert scores.shape == (8,) and (scores > 0).all()
