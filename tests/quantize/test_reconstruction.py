"""Rounding learnt block by block: closer outputs, on the grid, and kept only where it helps."""

import numpy as np
import pytest
import torch

import compress
from compress.errors import ModelError
from compress.graph.fold import fold
from compress.model import Model
from compress.numerics.rounding import learn_together
from compress.passes import Int8Static
from compress.quantize import reconstruction, regions, static
from compress.quantize.feedback import solve_all
from compress.quantize.static import Activations, Weights, learn_in_blocks, observe_ranges
from compress.quantize.ways import Way, calibrated_ways

TEXT = """g (float[N,6,4,4] x) => (float[N,5] y) {
    a = Conv<pads=[1,1,1,1]>(x, w0) b = Relu(a)
    c = Conv<pads=[1,1,1,1]>(b, w1) d = Relu(c) e = Conv<pads=[1,1,1,1]>(d, w2) f = Add(e, b) h = Relu(f)
    p = GlobalAveragePool(h) q = Flatten(p) y = Gemm(q, w3)
}"""


@pytest.fixture
def residual(build, normal):
    weights = {
        "w0": normal(8, 6, 3, 3),
        "w1": normal(8, 8, 3, 3),
        "w2": normal(8, 8, 3, 3),
        "w3": normal(8, 5),
    }
    batches = [{"x": np.cumsum(normal(16, 6, 4, 4), -1) / 4} for _ in range(12)]
    model = compress.load(build(TEXT, **weights), calibration=batches)
    fold(model.ir)
    return model


def _everything(*_):
    return True


def _learnt(model, bits=2):
    weights = Weights(bits, rounded=solve_all(model, _everything, bits))
    readers = regions.find(model.graph, _everything).readers
    observed = observe_ranges(model, readers, Activations("minmax").observer)
    learned, story = learn_in_blocks(model, _everything, Activations("minmax"), observed, weights)
    return weights, learned, story, observed


def test_outputs_on_new_data_come_closer_and_integers_stay_beside_the_weight(residual, normal, monkeypatch):
    monkeypatch.setattr(reconstruction, "STEPS", 40)
    start, learned, story, observed = _learnt(residual)
    x = np.cumsum(normal(64, 6, 4, 4), -1) / 4
    wanted = residual.run({"x": x})[0]

    def error(weights):
        variant = residual.copy()
        static.place(variant, _everything, Activations("minmax"), observed, weights)
        return float(np.square(variant.run({"x": x})[0] - wanted).sum())

    assert error(learned) < 0.9 * error(start)
    assert "of 3 blocks" in story and not story.startswith("rounding learnt in 0")
    for layer in regions.find(residual.graph, _everything).kernels:
        before, after = start.of(layer), learned.of(layer)
        assert torch.equal(before.scale, after.scale)
        exact = torch.from_numpy(layer.array.copy()) / before.granularity.expand(
            before.scale, layer.array.shape
        )
        beside = ((after.values - exact).abs() <= 1) | ((after.values - before.values).abs() <= 1)
        low, high = after.format.limits
        assert beside.all() and after.values.min() >= low and after.values.max() <= high


def test_the_same_data_give_the_same_rounding(residual, monkeypatch):
    monkeypatch.setattr(reconstruction, "STEPS", 5)
    first, second = (_learnt(residual)[1].rounded for _ in range(2))
    assert all(torch.equal(first[name].values, second[name].values) for name in first)


def test_what_does_not_help_is_not_kept(residual, monkeypatch):
    monkeypatch.setattr(reconstruction, "STEPS", 1)

    def worse(weights, start, *_):
        return {
            name: start[name].__class__(-q.values, q.scale, q.zero_point, q.format)
            for name, q in start.items()
        }

    monkeypatch.setattr(reconstruction, "learn_together", worse)
    start, learned, story, _ = _learnt(residual)
    assert story.startswith("rounding learnt in 0 of 3 blocks")
    assert all(torch.equal(q.values, learned.rounded[name].values) for name, q in start.rounded.items())


def test_a_round_goes_on_from_the_last_and_the_first_that_does_not_help_ends_them(residual, monkeypatch):
    rounds = {}

    def learned(weights, start, *rest):
        first = tuple(weights) not in rounds
        found = learn_together(weights, start, *rest) if first else start
        rounds.setdefault(tuple(weights), []).append((start, found))
        return found

    monkeypatch.setattr(reconstruction, "STEPS", 40)
    monkeypatch.setattr(reconstruction, "learn_together", learned)
    _, kept, story, _ = _learnt(residual)
    helped = [each for each in rounds.values() if len(each) > 1]
    assert story.startswith(f"rounding learnt in {len(helped)} of 3 blocks") and helped
    for (_, found), *others in helped:
        assert [start is found for start, _ in others] == [True]
        assert all(torch.equal(kept.rounded[name].values, each.values) for name, each in found.items())


def test_where_torch_cannot_follow_the_start_stays_and_is_told(residual, monkeypatch):
    def refuse(*_, **__):
        raise ModelError("node 'odd' cannot be trained")

    monkeypatch.setattr(reconstruction, "Trainable", refuse)
    start, learned, story, _ = _learnt(residual)
    assert "node 'odd' cannot be trained" in story
    assert all(torch.equal(q.values, learned.rounded[name].values) for name, q in start.rounded.items())


def test_memory_bounds_the_pieces(residual, monkeypatch):
    monkeypatch.setattr(reconstruction, "STEPS", 1)
    read = []
    monkeypatch.setattr(reconstruction, "_learn", lambda *given: read.append(len(given[3])) or {})
    _learnt(residual)
    monkeypatch.setattr(reconstruction, "CARRIED_BYTES", 250_000)
    _learnt(residual)
    assert read[0] == 12 and 1 <= read[-1] < 12


def test_the_pass_runs_four_bits_in_integer_kernels(residual, monkeypatch):
    monkeypatch.setattr(reconstruction, "STEPS", 10)
    made = Int8Static(weight_bits=4, rounding="blocks")(residual)
    stored = [v.const_value.numpy() for n, v in made.graph.initializers.items() if n.endswith(".quantized")]
    weights = [array for array in stored if array.dtype == np.int8 and array.ndim > 1]
    assert len(weights) == 4 and all(np.abs(array).max() <= 7 for array in weights)
    assert any("rounding learnt in" in (change.action or "") for change in made.changes)
    assert not any("in float" in (change.action or "") for change in made.changes)


def test_blocks_that_time_does_not_reach_keep_their_start(digits: Model) -> None:
    way = next(calibrated_ways(Way(name="", model=digits.prepared(), chosen=lambda *names: True)))
    late = way.learnt(seconds=0.0)
    before, after = (each.weights() for each in (way, late))
    same = [
        np.array_equal(each, after[layer][name])
        for layer, weights in before.items()
        for name, each in weights.items()
    ]
    assert all(same) and len(same) > 3
