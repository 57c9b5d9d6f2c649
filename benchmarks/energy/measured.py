"""Published measurements in ``measured.csv``, a source on every row.

Inferences of MLPerf Tiny's networks (result files of the rounds v1.0 to v1.3; energy where a meter was used),
and generated tokens of language models on H100 GPUs (The ML.ENERGY Benchmark, Chung et al., NeurIPS 2025;
energy of the GPUs alone, in the steady state).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Inference:
    """What one network took on one board."""

    source: str
    board: str
    network: str
    format: str
    seconds: float
    joules: float | None
    """At the board's supply; None where only the speed was measured."""


@dataclass(frozen=True)
class Token:
    """What one generated token took."""

    model: str
    format: str
    gpus: int
    batch: float
    """Requests in flight, on average."""
    written: int
    """Tokens that a request was answered with, on average."""
    joules: float
    seconds: float
    """Between two tokens of one request."""


@cache
def inferences(source: str) -> tuple[Inference, ...]:
    """Return the rows whose source ends in these words, such as ``v1.3, STMicroelectronics``."""
    return tuple(
        Inference(
            row["source"],
            row["system"],
            row["network"],
            row["format"],
            1 / float(row["per_second"]),
            float(row["microjoules"]) * 1e-6 if row["microjoules"] else None,
        )
        for row in _rows("inference")
        if row["source"].endswith(source)
    )


@cache
def tokens() -> tuple[Token, ...]:
    """Return every row of a generated token."""
    return tuple(
        Token(
            row["network"],
            row["format"],
            int(row["tensor_parallel"]),
            float(row["batch"]),
            int(row["mean_output_tokens"]),
            float(row["microjoules"]) * 1e-6,
            float(row["milliseconds_between_tokens"]) * 1e-3,
        )
        for row in _rows("token")
    )


def _rows(kind: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / "measured.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]
