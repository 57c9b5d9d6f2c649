"""Groundwork: what plans share is done once, and every plan is what the pass would make of it alone."""

import numpy as np
import onnx_ir as ir
import pytest

import compress
from compress.changes import Reason
from compress.passes import PerLayer
from compress.quantize import groundwork
from compress.quantize.groundwork import Groundwork
from compress.quantize.static import TRIED

CNN = """g (float[N,3,8,8] x) => (float[N,5] y) {
    [conv1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a)
    [conv2] c = Conv<pads=[1,1,1,1]>(r, w2, b2) s = Add(r, c) t = Relu(s)
    p = GlobalAveragePool(t) f = Flatten(p) [fc] y = Gemm(f, w3, b3)
}"""
LAYERS = ("conv1", "conv2", "fc")


@pytest.fixture
def model(build, normal, monkeypatch):
    monkeypatch.setattr("compress.quantize.groundwork.TRIED", TRIED[:2])  # five take seconds
    weights = {"w1": normal(16, 3, 3, 3), "w2": normal(16, 16, 3, 3) / 8, "w3": normal(16, 5) / 4}
    biases = {"b1": normal(16), "b2": normal(16), "b3": normal(5)}
    return compress.load(build(CNN, **weights, **biases), calibration=[normal(8, 3, 8, 8) for _ in range(3)])


def content(model):
    model = model.copy()
    return {name: value.const_value.tobytes() for name, value in model.graph.initializers.items()}


def test_a_plan_does_not_hang_on_the_plans_before(model):
    base = model.prepared(21)
    ground = Groundwork(base)
    plans = [
        ({"conv1": 0.5}, {"conv1": 8, "fc": 4}, ["conv1"]),
        ({}, dict.fromkeys(LAYERS, 4), ["fc", "conv2"]),
        ({"conv1": 0.5}, dict.fromkeys(LAYERS, 8), LAYERS),
    ]
    for plan in plans:
        assert content(ground.take(*plan)[0]) == content(Groundwork(base).take(*plan)[0])


def test_what_plans_share_is_done_once(model, monkeypatch):
    seen = []
    for name in ("solve_widths", "best_ranges", "observe_ranges"):
        inner = getattr(groundwork, name)
        monkeypatch.setattr(
            groundwork, name, lambda *args, name=name, inner=inner: seen.append(name) or inner(*args)
        )
    pruned = Groundwork(model.prepared(21)).pruned({"conv1": 0.5})
    pruned.integers([4, 8])
    for bits in (4, 8, 8):
        pruned.place(dict.fromkeys(LAYERS, bits), LAYERS)
    assert sorted(seen) == ["best_ranges", "observe_ranges", "solve_widths"]


def test_the_same_shares_are_pruned_once(model):
    ground = Groundwork(model.prepared(21))
    assert ground.pruned({"conv1": 0.5}) is ground.pruned({"conv1": 0.5})
    assert ground.pruned({"conv1": 1}) is ground.pruned()
    assert ground.pruned({"conv1": 0.5}) is not ground.pruned({"conv1": 0.75})


def test_layers_with_few_rows_are_rounded_at_the_bits_that_were_asked_for(build, normal):
    """Two rows of 64 features: GPTQ leaves the layer out."""
    proto = build("g (float[N,64] x) => (float[N,9] y) { [fc] y = MatMul(x, w) }", w=normal(64, 9))
    model = compress.load(proto, calibration=[normal(1, 64) for _ in range(2)]).prepared(21)
    pruned = Groundwork(model).pruned()
    assert pruned.integers([4]) == {4: {}}
    small, (change,) = pruned.place({"fc": 4}, ["fc"])
    assert change.action.startswith("8-bit activations, 4-bit weights per channel")
    assert small.graph.initializers["w.quantized"].dtype == ir.DataType.INT4
    assert np.unique(small.graph.initializers["w.quantized"].const_value.numpy()).size <= 15


def test_layers_that_the_plan_does_not_name_stay_and_say_so(model):
    small, changes = Groundwork(model.prepared(21)).take({}, {"conv2": 8}, ())
    assert {change.layer: change.skipped for change in changes if change.skipped} == dict.fromkeys(
        ("conv1", "fc"), Reason.SETTINGS.because("the plan does not name it")
    )
    np.testing.assert_array_equal(
        *(each.graph.initializers["w3"].const_value.numpy() for each in (small, model))
    )


def test_which_layers_can_multiply_integers(model, recurrent):
    pruned = Groundwork(model.prepared(21)).pruned()
    assert pruned.kernels == list(LAYERS)
    for name in pruned.kernels:
        _, changes = pruned.place({name: 8}, [name])
        assert [change.layer for change in changes if change.action.startswith("8-bit activations")] == [name]
    assert Groundwork(recurrent.prepared()).pruned().kernels == []


def test_the_groundwork_and_the_pass_make_the_same_weights(model):
    plan = {"conv1": 0.5}, {"conv1": 4, "conv2": 8, "fc": 16}, ("conv1",)
    small, _ = Groundwork(model.prepared(21)).take(*plan)
    made = PerLayer(channels=plan[0], weights=plan[1], activations=plan[2])(model)
    assert content(made) == content(small)
