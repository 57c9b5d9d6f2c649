"""What a person prints in a notebook: short, and with the figures that tell most."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compress
from compress.changes import Change, Changes
from compress.data import Data
from compress.estimator import load as load_profile
from compress.evaluate import compare
from compress.model import Model
from compress.passes import Fold, IntegerWeights
from compress.results import (
    Agreement,
    HardwareScore,
    Latency,
    LayerScore,
    Metric,
    Results,
    VariantResult,
)

LONGEST = 500
LAYER = LayerScore(
    name="fc", op_type="MatMul", energy={"dram": 1e-6}, dram_bytes=1e4, macs=9, seconds=1e-3, bound="dram"
)
SCORE = HardwareScore(
    energy_joules=7.38e-5,
    energy_low=7.2e-5,
    energy_high=7.6e-5,
    energy={"dram": 7.38e-5},
    dram_bytes=106e3,
    bytes_moved={"dram": 106e3},
    macs=10**6,
    seconds=1.2e-3,
    layers=[LAYER] * 100,
)
DONE = VariantResult(
    name="int8",
    passes=["int8"],
    status="done",
    file_bytes=45_500,
    metric=Metric(name="accuracy", value=0.9778, delta=-0.0028),
    agreement=Agreement(snr_db=32.14, cosine=0.9998),
    latency_seconds=Latency(median=1e-4, runs=50, ratio=0.65),
    hardware={f"hardware-{number}": SCORE for number in range(20)},
    changes=[Change(f"layer {number}", "8 bits", 400, 100, 0.004, by="int8") for number in range(100)],
    limits_missed=["energy is 58% of the original's, the limit is 50%"],
)
FAILED = VariantResult(name="int2", passes=["int2"], status="failed", reason="no layer fits " * 100)


@pytest.fixture(scope="module")
def results() -> Results:
    variants = [DONE.model_copy(update={"name": f"variant-{number}"}) for number in range(100)]
    return Results(
        recipe={"title": "Digits, cheaper"}, environment={"cpu": "x" * 999}, variants=[*variants, FAILED]
    )


@pytest.fixture(scope="module")
def model(build: Callable[..., Any]) -> Model:
    proto = build(
        "net (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", w=np.eye(64, dtype=np.float32)
    )
    return compress.load(proto, calibration=[np.ones((2, 64), np.float32)])


def check(thing: object, *said: str) -> None:
    for text in (repr(thing), str(thing)):
        assert len(text) < LONGEST, len(text)
        for each in said:
            assert each in text, text


def test_results(results: Results) -> None:
    check(results, "Digits, cheaper", "100 variants: variant-0, variant-1", "1 failed", "hardware-0")
    check(DONE, "'int8'", "45.5 kB", "accuracy 0.9778", "32.1 dB", "73.8 µJ on hardware-0", "missed 1 limit")
    check(FAILED, "'int2' failed: no layer fits")
    check(SCORE, "73.8 µJ (72.0 µJ to 76.0 µJ)", "106 kB of DRAM traffic", "1.20 ms", "100 layers")
    for each in (DONE.metric, DONE.agreement, DONE.latency_seconds, LAYER):
        check(each)


def test_a_short_repr_is_not_what_is_stored(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    stored = json.loads((tmp_path / "results.json").read_text())["variants"][0]["changes"][0]
    assert stored == {
        "layer": "layer 0",
        "action": "8 bits",
        "bytes_before": 400,
        "bytes_after": 100,
        "error": 0.004,
        "skipped": "",
        "by": "int8",
        "effect": None,
        "fell_short": "",
    }


def test_a_model_and_its_changes(model: Model) -> None:
    check(model, "x FLOAT[N,64] → y FLOAT[N,64]", "1 node", "16.4 kB of weights")
    check(model.changes, "no changes")
    small = compress.Pipeline([Fold(), IntegerWeights(bits=4)])(model)
    check(small, "after integer-weights")
    check(small.changes, "fold: changed nothing", "integer-weights: 1 layer, 16.4 kB → ", "worst error")
    many = Changes(Change("x" * 40, "done", 9, 1, by=f"pass {number}") for number in range(50))
    check(many, "44 earlier passes", "pass 49: 1 layer")


def test_data(model: Model) -> None:
    check(model.calibration, "Data(calibration, 1 batch)")
    check(Data(lambda: iter([np.ones(10**6)]), "evaluation"), "Data(evaluation, from test_data.<locals>")


def test_estimates(model: Model) -> None:
    estimate = compress.estimate(model, "cpu")
    check(estimate, "Estimate('cpu': ", "J (", "kB of DRAM traffic", "1 layer")
    check(estimate.total, "of DRAM traffic")
    check(estimate.layers[0], "MatMul", "limited by")
    check(load_profile("cpu"), "Profile('cpu': ", "fp32")


def test_a_comparison(model: Model, tmp_path: Path) -> None:
    path = model.save(tmp_path / "original.onnx")
    check(compare(path, path), "Comparison(original.onnx with original.onnx: identical", "16.4 kB → 16.4 kB")


def test_passes_print_as_a_recipe_writes_them() -> None:
    check(compress.Pipeline([Fold(), IntegerWeights(bits=4)]), "Pipeline([fold, integer-weights")
