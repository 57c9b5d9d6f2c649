"""Compressed networks beside their originals in ONNX Runtime on one machine: graphs, and what they took.

``cpu_pairs.csv`` holds the processor time of each variant over the original's, on one thread, the two taking
turns, timed twice; ``cpu_pairs.zip`` the graphs that were timed, with zeros for weights: neither time nor its
prediction depends on them. ``cpu_timing.py`` makes and times all of it anew.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

TABLE, GRAPHS = (Path(__file__).parent / f"cpu_pairs.{end}" for end in ("csv", "zip"))
ORIGINAL = "float"


@dataclass(frozen=True)
class Pair:
    """One variant of a network and its original."""

    network: str
    variant: str
    shapes: dict[str, list[int]]
    ratios: tuple[float, float]
    """Measured processor time over the original's, twice."""

    @property
    def ratio(self) -> float:
        """The mean of both measurements."""
        return float(np.sqrt(np.prod(self.ratios)))


def kept() -> tuple[str, list[Pair]]:
    """Return the machine that was measured, and its pairs."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[0]["machine"], [
        Pair(
            row["network"],
            row["variant"],
            json.loads(row["shapes"]),
            (float(row["ratio"]), float(row["again"])),
        )
        for row in rows
    ]


def graph(network: str, variant: str) -> onnx.ModelProto:
    """Return a graph that was timed, without the values of its weights."""
    with zipfile.ZipFile(GRAPHS) as file:
        return onnx.load_from_string(file.read(f"{network}.{variant}.onnx"))


def save(machine: str, pairs: Sequence[Pair]) -> None:
    """Write the table."""
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["machine", "network", "variant", "shapes", "ratio", "again"])
        for pair in pairs:
            ratios = (f"{ratio:.4f}" for ratio in pair.ratios)
            writer.writerow([machine, pair.network, pair.variant, json.dumps(pair.shapes), *ratios])
