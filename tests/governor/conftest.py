"""A small family of variants, as options and as the folder of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compress.governor import Frontier, Option
from compress.results import HardwareScore, Metric, Results, VariantResult

FAMILY = {"tiny": (0.70, 1.0, 0.001), "small": (0.80, 2.0, 0.002), "large": (0.90, 8.0, 0.008)}
"""Accuracy, joules and seconds."""


@pytest.fixture
def frontier() -> Frontier:
    return Frontier.of(Option(name, *numbers) for name, numbers in FAMILY.items())


@pytest.fixture
def run_folder(tmp_path: Path, build: Callable[..., onnx.ModelProto]) -> Path:
    """The folder of a run with three variants, each of which puts out a number of its own."""
    variants = []
    for place, (name, (accuracy, joules, seconds)) in enumerate(FAMILY.items()):
        text = "g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }"
        onnx.save(build(text, w=np.full(4, place, np.float32)), tmp_path / f"{name}.onnx")
        score = HardwareScore(
            energy_joules=joules,
            energy_low=joules,
            energy_high=joules,
            energy={"compute": joules},
            dram_bytes=0,
            bytes_moved={},
            macs=4,
            seconds=seconds,
        )
        variants.append(
            VariantResult(
                name=name,
                passes=[],
                status="done",
                path=f"{name}.onnx",
                metric=Metric(name="accuracy", value=accuracy, delta=accuracy - 0.9),
                hardware={"stm32u575": score},
                shapes={"x": (1, 4)},
            )
        )
    Results(recipe={}, environment={}, variants=variants).save(tmp_path / "results.json")
    return tmp_path
