"""int8 without settings, smoothing, and the noise of single layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

import compress
from compress.changes import Change, Reason
from compress.data import Data
from compress.diagnose.agreement import decibels
from compress.errors import DataError
from compress.graph.layers import layers
from compress.graph.session import session
from compress.model import Model
from compress.passes import Int8, Int8Dynamic, Int8Static, Smooth
from compress.quantize.choice import explained
from compress.quantize.placement import TOO_NOISY, Table


def chosen(model: Model) -> str:
    """Return what the account of `Int8` says of the way it chose."""
    (story,) = [each.action for each in model.changes if each.action.startswith("chosen")]
    return story


def test_a_network_that_takes_integers_gets_them(digits: Model) -> None:
    small = Int8()(digits)
    assert "Not chosen" in chosen(small)
    told = list(
        dict.fromkeys(change.layer for change in small.changes if change.effect and change.effect.is_measured)
    )
    assert told == [layer.name for layer in layers(digits.graph) if layer.name in told]
    assert len(told) > 1 or not chosen(small).startswith("chosen: integers, range")
    assert small.weight_bytes < 0.32 * digits.weight_bytes
    feeds = next(digits.batches())
    wanted, got = digits.run(feeds)[0], small.run(feeds)[0]
    assert decibels(np.square(wanted).sum(), np.square(wanted - got).sum()) > 25
    assert (wanted.argmax(1) == got.argmax(1)).mean() > 0.98


def test_without_data_weights_alone_are_stored(digits: Model) -> None:
    bare = Model(digits.ir)
    small = Int8()(bare)
    assert "without calibration data" in chosen(small)
    assert small.weight_bytes < 0.32 * digits.weight_bytes


def test_smoothing_keeps_the_outputs_and_tames_outliers(mlp: Model) -> None:
    feeds = next(mlp.batches())
    name = next(iter(feeds))
    scales = np.geomspace(1, 1000, feeds[name].shape[-1]).astype(np.float32)
    rng = np.random.default_rng(0)
    batches = [{name: rng.normal(size=feeds[name].shape).astype(np.float32) * scales} for _ in range(4)]
    model = mlp.copy()
    model.calibration = Data(batches)
    smooth = Smooth(strength=1.0)(model)
    assert any(change.action for change in smooth.changes)
    wanted = model.run(batches[0])[0]
    np.testing.assert_allclose(smooth.run(batches[0])[0], wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())

    def error(each: Model) -> float:
        # Pairs Q/DQ run one by one in float, where eight bits saturate on no processor.
        plain = session(Int8Static(weight_bits=8)(each).ir, optimize=False)
        return float(np.square(plain.run(None, batches[0])[0] - wanted).sum())

    assert error(smooth) < error(model)


def test_a_recurrent_network_runs_its_lstm_in_integers_if_that_is_faster(recurrent: Model) -> None:
    small = Int8()(recurrent)
    assert "each run's range" in chosen(small)
    assert small.weight_bytes < 0.35 * recurrent.weight_bytes


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_inputs_of_any_scale_enter_a_recurrent_layer(operator: str, build: Any, normal: Any) -> None:
    """Features from a thousandth to a thousand, whose weights make up for it."""
    scales, gates = np.geomspace(1e-3, 1e3, 12).astype(np.float32), {"LSTM": 4, "GRU": 3}[operator]
    text = f"g (float[T,N,12] x) => (float[T,1,N,16] y) {{ y = {operator}<hidden_size = 16>(x, w, r) }}"
    w, r = normal(1, 16 * gates, 12) / scales, normal(1, 16 * gates, 16) / 4
    batches = [normal(10, 4, 12) * scales for _ in range(8)]
    model = compress.load(build(text, w=w, r=r), calibration=batches, batch_axis=1)
    small = Int8()(model)
    feeds = {"x": normal(10, 4, 12) * scales}
    wanted, got = model.run(feeds)[0], small.run(feeds)[0]
    assert (decibels(np.square(wanted).sum(), np.square(wanted - got).sum()) or 0) > 30
    assert "smoothed" in chosen(small)


def test_what_eight_bits_cannot_keep_is_kept_in_sixteen(mlp: Model) -> None:
    kept = Int8(min_snr_db=62)(mlp)
    assert chosen(kept).startswith("chosen: 16-bit weights")
    assert 0.45 < kept.weight_bytes / mlp.weight_bytes < 0.6
    (shortfall,) = [each.fell_short for each in kept.changes if each.fell_short]
    assert shortfall.startswith("8 bits do not keep 62 dB; the closest, ")


def test_what_is_promised_and_cannot_be_kept_leaves_the_model_as_it_was(mlp: Model) -> None:
    hopeless = Int8(min_snr_db=200)(mlp)
    assert hopeless.weight_bytes == mlp.weight_bytes and not hopeless.is_prepared
    assert any("8 bits do not keep 200 dB" in each.skipped for each in hopeless.changes)


def test_a_metric_that_falls_too_far_is_not_taken(digits: Model) -> None:
    """The original's own answers are the labels, so that each that is lost counts."""
    feeds = list(digits.batches())
    labelled = [(each, digits.run(each)[0].argmax(1)) for each in feeds]
    model = Model(digits.ir, calibration=Data(labelled))
    small = Int8(max_drop=0.05)(model)
    samples = sum(len(labels) for _, labels in labelled[3::4])
    assert "accuracy loses 0 of 1 (95 %: -0.0" in chosen(small)
    assert f"{samples} samples)" in chosen(small)


def test_sixteen_bits_or_nothing_where_eight_lose_too_much_of_the_metric(mlp: Model) -> None:
    exact = [(each, mlp.run(each)[0]) for each in mlp.batches()]
    model = Model(mlp.ir, calibration=Data(exact))
    halves = Int8(metric="mse", max_drop=1e-6)(model)
    assert chosen(halves).startswith("chosen: 16-bit weights") and "mse loses " in chosen(halves)
    (shortfall,) = [each.fell_short for each in halves.changes if each.fell_short]
    assert "mse within 1e-06 of the original's; the closest, " in shortfall
    nothing = Int8(metric="mse", max_drop=0)(model)
    assert not nothing.is_prepared
    assert any(each.skipped.startswith("would lose too much: 8 bits do not keep") for each in nothing.changes)


def test_what_nothing_can_tell_is_refused_before_the_search(digits: Model, mlp: Model) -> None:
    with pytest.raises(DataError, match="batch 0: accuracy needs labels"):
        Int8(max_drop=0.01)(mlp)
    for promise in (Int8(max_drop=0.01), Int8(min_snr_db=30)):
        with pytest.raises(DataError, match="without calibration data"):
            promise(Model(digits.ir))


def test_what_cannot_be_calibrated_does_not_stop_the_rest(build: Any, normal: Any) -> None:
    """An infinite activation has no range: its layers keep float arithmetic, and 8-bit weights."""
    text = "g (float[N,64] x) => (float[N,64] y) { e = Div(x, z) h = MatMul(e, w) y = Tanh(h) }"
    weight, zero = normal(64, 64), np.zeros(64, np.float32)
    zero[1:] = 1
    weight[0] = 1
    model = compress.load(build(text, w=weight, z=zero), calibration=[{"x": np.abs(normal(2, 64))}])
    small = Int8()(model)
    assert "NaN or infinite" in chosen(small)
    assert small.weight_bytes < 0.3 * model.weight_bytes
    feeds = next(model.batches())
    np.testing.assert_allclose(small.run(feeds)[0], model.run(feeds)[0], atol=0.01)


def with_branches(weights: list[np.ndarray]) -> onnx.ModelProto:
    """An If whose branches have their own weights, and pass one value on as it is."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    bodies = []
    for number, weight in enumerate(weights):
        output, kept = (helper.make_tensor_value_info(f"{name}{number}", float32, ["N", 64]) for name in "yk")
        nodes = [
            helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(weight)),
            helper.make_node("MatMul", ["x", "w"], [output.name]),
            helper.make_node("Identity", ["x"], [kept.name]),
        ]
        bodies.append(helper.make_graph(nodes, f"body{number}", [], [output, kept]))
    inputs = [
        helper.make_tensor_value_info("x", float32, ["N", 64]),
        helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info(name, float32, ["N", 64]) for name in ("y", "k")]
    node = helper.make_node("If", ["c"], ["y", "k"], then_branch=bodies[0], else_branch=bodies[1])
    graph = helper.make_graph([node], "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_weights_in_the_branches_of_an_if_are_stored_too(normal: Any) -> None:
    feeds = [{"x": normal(4, 64), "c": np.array(choice)} for choice in (True, False)]
    model = compress.load(with_branches([normal(64, 64), normal(64, 64)]), calibration=feeds)
    for small in (Int8()(model), Int8Dynamic()(model), Int8Static()(model)):
        assert small.weight_bytes < 0.3 * model.weight_bytes
        for each in feeds:
            found, expected = small.run(each)[0], model.run(each)[0]
            assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_strength_is_a_share(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        Smooth(strength=strength)


def test_layers_say_what_integers_mean_for_them() -> None:
    noise = dict.fromkeys(("one", "two", "three", "four"), 1e-5)
    table = Table(noise, dict.fromkeys(noise, 0.3), dict.fromkeys(noise, 0.1))
    done = [
        Change("one", "7-bit weights"),
        Change("two", "8-bit weights"),
        Change("three", skipped="too small"),
    ]
    norm, shared = Change("norm", skipped="a vector"), Change("four", skipped=Reason.SHARED)
    told = explained([norm, *reversed(done)], table, frozenset({"one"}))
    assert [replace(change, effect=None) for change in told] == [done[0], *done[1:], shared, norm]
    heard = "integers: 50 dB at the outputs, 10.0% of the time instead of 30.0%"
    assert [str(change.effect) for change in told] == [
        heard,
        *(f"left in float: {TOO_NOISY}; {heard}" for _ in range(3)),
        "None",
    ]


def test_speed_settles_for_less_and_a_stated_number_counts() -> None:
    assert Int8().aim.enough_db == 28 and Int8(prefer="speed").aim.least_db == 14
    assert Int8(prefer="speed", min_snr_db=40).aim.least_db == 40
