"""Results as a run of a small convolutional network would store them, made by simple arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compress import estimator
from compress.changes import Change
from compress.results import (
    Agreement,
    HardwareScore,
    Latency,
    LayerScore,
    Metric,
    Results,
    Searched,
    SearchedPoint,
    VariantResult,
)

COMPONENTS = {
    "eyeriss-v1": {
        "compute": 6e-12,
        "dram": 160e-12,
        "buffer": 2.4e-12,
        "network": 0.9e-12,
        "registers": 1.6e-12,
        "static": 21e-6,
    },
    "tpu-v4i": {"compute": 0.4e-12, "dram": 31e-12, "cmem": 0.8e-12, "vmem": 0.3e-12, "static": 4e-6},
    "cpu": {"compute": 20e-12, "dram": 150e-12, "l3": 15e-12, "l2": 9e-12, "l1": 4e-12, "static": 90e-6},
}
"""Joules per multiply-accumulate, per byte of DRAM, per layer (static)."""
VARIANTS: dict[str, tuple[list[str], float, float, float]] = {
    "original": ([], 1.0, 1.0, 0.9806),
    "int8": (["int8-static"], 1.0, 0.25, 0.9778),
    "int4-weights": (["integer-weights: {bits: 4}"], 1.0, 0.2, 0.9722),
    "pruned": (["prune-channels: {ratio: 0.5}", "finetune: {epochs: 10}"], 0.3, 0.32, 0.9750),
    "pruned-int8": (["prune-channels: {ratio: 0.5}", "finetune", "int8-static"], 0.3, 0.09, 0.9694),
    "half-energy": (["allocate: {budget: {energy: 50%}}"], 0.55, 0.4, 0.9778),
    "float16": (["float-weights"], 1.0, 0.5, 0.9806),
}
"""Passes, share of the multiplications, share of the bytes, accuracy."""


def layer_name(index: int) -> str:
    kinds = ("conv", "bn", "conv", "fc")
    return f"features.block{index // 4}.{kinds[index % 4]}{index}"


def score(profile: str, work: float, stored: float, layers: int) -> HardwareScore:
    scores = []
    for index in range(layers):
        macs = int(work * 4e5 * (1 + math.sin(index * 1.7)) + 2e4)
        dram = stored * 1e4 * (1 + index % 5) + 2000 * work
        each = {name: joules * macs for name, joules in COMPONENTS[profile].items()}
        each["dram"] = COMPONENTS[profile]["dram"] * dram
        each["static"] = COMPONENTS[profile]["static"] / layers * (0.3 + 0.7 * work) * 0.1
        seconds = max(macs / 2e10, dram / 8e8)
        scores.append(
            LayerScore(
                name=layer_name(index),
                op_type="Conv" if index % 4 != 3 else "MatMul",
                energy=each,
                dram_bytes=dram,
                macs=macs,
                seconds=seconds,
                bound="compute" if macs / 2e10 > dram / 8e8 else "dram",
                dram_weight_bytes=dram * (0.3 + 0.1 * (index % 5)),
            )
        )
    total = {name: sum(layer.energy[name] for layer in scores) for name in COMPONENTS[profile]}
    joules = sum(total.values())
    spread = 0.02 if profile == "eyeriss-v1" else 0.25
    normal = np.random.default_rng(int(joules * 1e12)).standard_normal(300) / 1.645
    return HardwareScore(
        energy_joules=joules,
        energy_low=joules * (1 - spread),
        energy_high=joules * (1 + spread),
        energy_draws=(joules * np.exp(spread * normal)).tolist(),
        energy=total,
        dram_bytes=sum(layer.dram_bytes for layer in scores),
        bytes_moved={"dram": sum(layer.dram_bytes for layer in scores)},
        macs=sum(layer.macs for layer in scores),
        seconds=sum(layer.seconds for layer in scores),
        layers=scores,
    )


def changes(passes: list[str], stored: float, layers: int) -> list[Change]:
    records = []
    for written in passes:
        name = written.partition(":")[0]
        for index in range(layers):
            skip = index % 4 == 1
            before = 0 if skip else 4000 * (1 + index % 5)
            records.append(
                Change(
                    layer=layer_name(index),
                    action="" if skip else f"{name}, per channel",
                    bytes_before=before,
                    bytes_after=int(before * stored),
                    error=None if skip or name == "finetune" else 0.004 * (1 + index % 7),
                    skipped="no weight of two or more dimensions" if skip else "",
                    by=name,
                )
            )
    return records


def variant(name: str, *, hardware: tuple[str, ...], layers: int) -> VariantResult:
    passes, work, stored, accuracy = VARIANTS[name]
    return VariantResult(
        name=name,
        passes=passes,
        status="done",
        path=f"{name}.onnx",
        file_bytes=int(146_000 * stored + 9_000),
        weight_bytes=int(146_000 * stored),
        metric=Metric(name="accuracy", value=accuracy, delta=accuracy - 0.9806),
        agreement=Agreement(
            snr_db=8 + 60 * stored if passes else None,
            cosine=1 - 0.0002 / stored if passes else None,
            equal=None if passes else 1.0,
            top1=1 - 0.01 / stored if passes else 1.0,
        ),
        latency_seconds=Latency(
            median=1.12e-4 * (0.4 + 0.6 * work * stored), runs=50, ratio=0.4 + 0.6 * work * stored
        ),
        hardware={profile: score(profile, work, stored, layers) for profile in hardware},
        changes=changes(passes, stored, layers),
        pareto=list(hardware) if name in {"original", "half-energy", "pruned", "pruned-int8"} else [],
        limits_missed=["energy on eyeriss-v1 is 58% of the original's, the limit is 50%"]
        if name == "half-energy"
        else [],
    )


def against_first(one: VariantResult) -> VariantResult:
    """Add the ratios of energy to the original with as many layers."""
    if one.name == "original":
        return one
    scores = {
        profile: each.model_copy(
            update={"ratio": estimator.ratio(each, score(profile, 1.0, 1.0, len(each.layers)))}
        )
        for profile, each in one.hardware.items()
    }
    return one.model_copy(update={"hardware": scores})


@pytest.fixture(scope="session")
def make_results() -> Callable[..., Results]:
    """A function that makes results: which variants, on which profiles, with how many layers."""

    def make(
        names: tuple[str, ...] = ("original", "int8", "int4-weights", "pruned", "pruned-int8", "half-energy"),
        *,
        hardware: tuple[str, ...] = tuple(COMPONENTS),
        layers: int = 12,
        failed: dict[str, str] | None = None,
        **recipe: Any,
    ) -> Results:
        variants = [against_first(variant(name, hardware=hardware, layers=layers)) for name in names]
        for name, reason in (failed or {}).items():
            variants.append(
                VariantResult(
                    name=name, passes=["integer-weights: {bits: 4}"], status="failed", reason=reason
                )
            )
        return Results(
            recipe={"path": "recipes/digits.yaml", "title": "Digits, cheaper", "model": "digits_cnn.py:build"}
            | recipe,
            environment={
                "compress": "0.1.0",
                "python": "3.11.9",
                "onnxruntime": "1.32.0",
                "cpu": {"name": "a processor", "flags": ["avx2", "avx512_vnni"], "threads": 2},
                "time": "2026-11-22T17:30:00Z",
            },
            variants=variants,
        )

    return make


@pytest.fixture(scope="session")
def results(make_results: Callable[..., Results]) -> Results:
    """Six variants on three profiles with twelve layers, and one that failed."""
    return make_results(
        failed={"int2": "int2-weights: layer 'features.block0.conv0': 2 bits need an even group size"}
    )


def searched_point(name: str, share: float, noise: float, plan: dict[str, Any]) -> SearchedPoint:
    costs = {"energy": 8e-4 * share, "file": 1e5 * share}
    predicted = {"loss": noise / 1.2, **{each: 0.98 * cost for each, cost in costs.items()}}
    return SearchedPoint(
        name=name, plan=plan, predicted=predicted, found={"loss": noise, **costs}, drop=9 * noise
    )


@pytest.fixture(scope="session")
def searched() -> Searched:
    """A frontier of three variants, of which the first is the original."""
    plans: list[dict[str, Any]] = [
        {},
        {"weights": {"conv<0>": 8, "conv<1>": 4, "fc": 16}, "activations": ["conv<0>"]},
        {"channels": {"conv<1> (channels)": 0.5}, "weights": {"conv<0>": 4, "conv<1>": 4}},
    ]
    numbers = [(1.0, 0.0), (0.3, 0.001), (0.1, 0.01)]
    points = [
        searched_point(f"search-{place}", *pair, plan)
        for place, (pair, plan) in enumerate(zip(numbers, plans, strict=True), start=1)
    ]
    return Searched(
        minimised="energy",
        hardware="eyeriss-v1",
        original={"energy": 8e-4, "file": 1e5},
        points=points,
        evaluated=[*points, searched_point("", 0.2, 0.02, plans[1])],
    )
