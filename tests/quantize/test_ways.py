"""Ways name the layers that multiply integers, and taking them leaves the float model as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import compress
from compress.changes import Effect
from compress.model import Model
from compress.quantize.ways import Way, calibrated_ways, mixed_ways, ways_of_each_run

NETWORK = """g (float[N,4,6,6] x) => (float[N,5] y) {
    a = Conv(x, w1) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, w2)
}"""


@pytest.fixture
def start(build: Any, normal: Any) -> Way:
    weights = {"w1": normal(8, 4, 3, 3), "w2": normal(8, 5)}
    model = compress.load(build(NETWORK, **weights), calibration=[{"x": normal(4, 4, 6, 6)}])
    return Way(name="", model=model.prepared(), chosen=lambda *names: True)


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.graph]


def layers(model: Model) -> dict[str, str]:
    """Return the names of convolution and product."""
    return {node.op_type: node.name or "" for node in model.graph if node.op_type in ("Conv", "Gemm")}


def test_each_run_finds_the_ranges_of_linear_layers_alone(start: Way) -> None:
    (way,) = ways_of_each_run(start)
    assert way.layers() == [layers(start.model)["Gemm"]]
    model, changes = way.take()
    assert "MatMulInteger" in operators(model) and "Conv" in operators(model)
    told = {change.layer: change.effect for change in changes if change.action}
    assert told.keys() == set(layers(start.model).values())
    conv, gemm = (told[layers(start.model)[operator]] for operator in ("Conv", "Gemm"))
    assert gemm == Effect(in_integers=True)
    assert conv is not None and "Conv has no kernel for ranges found at each run" in conv.why
    assert "MatMulInteger" not in operators(start.model), "the float model stays"
    assert not list(ways_of_each_run(replace(start, chosen=lambda *names: False)))


def test_ranges_come_from_calibration_in_four_kinds(start: Way) -> None:
    ways = list(calibrated_ways(start))
    assert [way.name for way in ways] == [
        "range minmax",
        "range percentile 99.99",
        "range mse",
        "range percentile 99.9",
    ]
    for way in ways:
        assert set(way.layers()) == set(layers(start.model).values())
        model, _ = way.take()
        assert "QuantizeLinear" in operators(model)
    assert not list(calibrated_ways(replace(start, chosen=lambda *names: False)))


def test_layers_go_back_to_float_by_name(start: Way) -> None:
    way = next(calibrated_ways(start))
    names = layers(start.model)
    model, changes = way.take([names["Conv"]])
    said = {change.layer: change.action for change in changes}
    assert "8-bit activations" in said[names["Gemm"]]
    assert "activations" not in said[names["Conv"]], "its weight alone is stored in 8 bits"
    assert model.weight_bytes < start.model.weight_bytes


def test_a_small_layer_in_float_has_one_reason(build: Any, normal: Any) -> None:
    text = NETWORK.replace("N,5", "N,2000")
    model = compress.load(
        build(text, w1=normal(8, 4, 3, 3), w2=normal(8, 2000)), calibration=[{"x": normal(4, 4, 6, 6)}]
    )
    way = next(calibrated_ways(Way(name="", model=model.prepared(), chosen=lambda *names: True)))
    conv = layers(way.model)["Conv"]
    _, changes = way.take([conv])
    assert [each.skipped for each in changes if each.layer == conv] == [
        "too small to gain: its rounding is spared"
    ]


def test_mixed_ways_leave_linear_layers_to_each_run(start: Way) -> None:
    (way,) = mixed_ways(next(calibrated_ways(start)))
    assert way.besides == (layers(start.model)["Gemm"],)
    assert set(way.layers()) == set(layers(start.model).values())
    model, _ = way.take()
    assert {"QuantizeLinear", "MatMulInteger"} <= set(operators(model))


def test_weights_beside_integers_have_the_stated_bits(start: Way) -> None:
    way = next(calibrated_ways(replace(start, bits=8)))
    assert "8-bit weights" in next(each.action for each in way.take()[1] if each.action)
    way = replace(way, bits=7)
    assert "7-bit weights" in next(each.action for each in way.take()[1] if each.action)
    coarse, fine = (replace(way, bits=bits).weights() for bits in (7, 8))
    for name, values in coarse.items():
        for weight, each in values.items():
            step = np.abs(each).max() / 63
            assert 0 < np.abs(each - fine[name][weight]).max() <= step


def test_learnt_rounding_moves_weights_by_one_step_at_most(start: Way) -> None:
    way = next(calibrated_ways(start))
    learnt = way.learnt()
    assert learnt.name == "range minmax, rounding learnt in blocks"
    assert way.rounded == {}, "the way itself stays"
    before, after = (each.weights() for each in (way, learnt))
    moved = 0
    for name, values in before.items():
        for weight, each in values.items():
            apart = np.abs(each - after[name][weight])
            assert apart.max() <= np.abs(each).max() / 60
            moved += int((apart > 0).sum())
    assert moved
