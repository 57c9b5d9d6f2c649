"""Palettes, weights coded at a rate, and deep compression: what is left of size and metric.

``python benchmarks/weight_compression.py [--models digits,legere] [--parts palettes,rate,deep]``

Sizes are those of packed files (``compress pack``), over the float ONNX file. The part "rate" looks for
the rate at which `coded-weights` is as close to the original as plain 8-bit and 4-bit weights, by
signal-to-noise of the outputs on evaluation data, and compares the packed files. The part "deep" goes
through pruning, training and coding: twenty times smaller within one point for digits and legere, ten
times within two points for EfficientNet, whose evaluation of 200 views cannot tell two points from
noise. The networks come with ``benchmarks/models.txt``.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from quantization import prepare
from rich.console import Console
from rich.table import Table
from zoo import HERE, entry

import compress
import compress.codec
from compress.diagnose.metrics import measure
from compress.model import Model
from compress.passes import (
    CodedWeights,
    Finetune,
    Fold,
    Int4Weights,
    Int8Weights,
    Palettize,
    PruneChannels,
)
from compress.passes.base import Pass
from compress.source import call

RECIPES = Path(__file__).parents[1] / "recipes"
LINES, SHEET = 1024, 16
"""Lines of text that legere trains on, and how many go through it at once."""
SEARCHES = 4
"""Rates that are tried for the same signal-to-noise ratio."""
DB_OF_A_BIT = 6.02
PALETTES = (
    Palettize(entries=16),
    Palettize(entries=16, channels=8),
    Palettize(entries=4),
    Palettize(entries=256, dimensions=4),
)


@dataclass(frozen=True)
class Case:
    """One network with what becomes of it."""

    original: Model
    metric: Callable[[Model], float]
    evaluation: tuple[dict[str, np.ndarray], ...]
    training: Callable[[], list[object]] | None
    """Batches to train on; the calibration data if left out."""
    deep: tuple[Pass, ...]


def digits() -> Case:
    """The network of the recipes on 8 x 8 digits."""
    load = functools.partial(call, home=RECIPES, trust=True)
    model = compress.load(
        load("digits_cnn.py:build")(),
        calibration=load("digits_cnn.py:calibration"),
        evaluation=load("digits_cnn.py:evaluation"),
    )
    assert model.evaluation is not None
    inputs = model.graph.inputs

    def accuracy(variant: Model) -> float:
        assert model.evaluation is not None
        return measure("accuracy", variant.run, model.run, model.evaluation.batches(inputs))

    deep = (
        PruneChannels(ratio=0.4),
        Finetune(epochs=12, learning_rate=2e-3, distill=True),
        Fold(),
        CodedWeights(rate=3.5, operators="expanded"),
    )
    return Case(model, accuracy, tuple(f for f, _ in model.evaluation.batches(inputs)), None, deep)


def legere() -> Case:
    """A reader of lines, which learns from the original's answers on other lines."""
    deep = (
        PruneChannels(ratio=0.3, importance="activation", repair=True),
        Finetune(epochs=8, learning_rate=2e-3, distill=True, distill_share=1),
        CodedWeights(rate=2.4, operators="expanded"),
    )
    return _of_zoo("legere", deep, _lines_of_text)


def efficientnet_lite0() -> Case:
    """A classifier of photographs, with crops of two to calibrate on: too few to train."""
    return _of_zoo("efficientnet_lite0", (Fold(), CodedWeights(rate=3.05, operators="expanded")))


def _of_zoo(name: str, deep: tuple[Pass, ...], training: Callable[[], list[object]] | None = None) -> Case:
    network = entry(name)
    model = compress.load(prepare(network) / "float.onnx", calibration=network.calibration)

    def metric(variant: Model) -> float:
        return next(iter(network.metric(variant.run).values()))

    return Case(model, metric, tuple(network.evaluation()), training, deep)


def _lines_of_text() -> list[object]:
    load = functools.partial(call, home=HERE, trust=True)
    charset = load("legere.py:_part")("charset").CHARSET
    drawn = load("text_lines.py:lines")(LINES, load("news.py:calibration_text")(), charset, 1, 32)
    pictures = sorted((picture for picture, _ in drawn), key=lambda picture: picture.shape[-1])
    return [load("legere.py:_feeds")(pictures[at : at + SHEET]) for at in range(0, LINES, SHEET)]


CASES = {case.__name__: case for case in (digits, legere, efficientnet_lite0)}


def packed_bytes(model: Model) -> int:
    """Return the size of a model's packed file."""
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder, "model.onnx"))
        compress.codec.pack(path, Path(folder, "model.packed"))
        return Path(folder, "model.packed").stat().st_size


def file_bytes(model: Model) -> int:
    """Return the size of a model's ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        return model.save(Path(folder, "model.onnx")).stat().st_size


def snr(case: Case, variant: Model) -> float:
    """Return signal over noise of the first output on the evaluation data, in dB."""
    noise = signal = 0.0
    for feeds in case.evaluation:
        expected, found = (model.run(feeds)[0].astype(np.float64) for model in (case.original, variant))
        noise, signal = noise + np.square(found - expected).sum(), signal + np.square(expected).sum()
    return float(10 * np.log10(signal / max(noise, 1e-30)))


Row = tuple[str, ...]


def row(case: Case, label: str, variant: Model, started: float) -> Row:
    """Return one line of a table."""
    size, whole = packed_bytes(variant), file_bytes(case.original)
    return (
        label,
        f"{whole / file_bytes(variant):.1f}",
        f"{whole / size:.1f}",
        f"{size * 8 / (case.original.weight_bytes / 4):.2f}",
        f"{snr(case, variant):.1f}",
        f"{case.metric(variant):.4f}",
        f"{time.perf_counter() - started:.0f}",
    )


def palettes(case: Case) -> Iterator[Row]:
    """Yield the rows of palettes."""
    for chosen in PALETTES:
        started = time.perf_counter()
        yield row(case, repr(chosen), chosen(case.original), started)


def rate(case: Case) -> Iterator[Row]:
    """Yield plain integers, and integers at the rate at which they are as close to the original."""
    for plain in (Int8Weights(operators="expanded"), Int4Weights(operators="expanded")):
        started = time.perf_counter()
        integers = plain(case.original)
        yield row(case, repr(plain), integers, started)
        started = time.perf_counter()
        rate, coded = _as_close(case, integers)
        saved = 1 - packed_bytes(coded) / packed_bytes(integers)
        yield row(case, f"coded-weights: {{rate: {rate:.2f}}}: {saved:.0%} below", coded, started)


def _as_close(case: Case, integers: Model) -> tuple[float, Model]:
    """Return the smallest rate found, and its model, that is no farther from the original than `integers`."""
    wanted = snr(case, integers)
    rate = min(8 * packed_bytes(integers) / (case.original.weight_bytes / 4) - 1, 6.5)
    found: tuple[float, Model] | None = None
    for _ in range(SEARCHES):
        coded = CodedWeights(rate=rate, operators="expanded")(case.original)
        reached = snr(case, coded)
        if reached >= wanted and (found is None or rate < found[0]):
            found = rate, coded
        rate = min(rate + (wanted + 0.1 - reached) / DB_OF_A_BIT, 7.0)
    return found or (rate, coded)


def deep(case: Case) -> Iterator[Row]:
    """Yield the original, and what is left after each step."""
    started = time.perf_counter()
    model = case.original.copy()
    yield row(case, "original", model, started)
    if case.training is not None:
        model.calibration = compress.load(model.ir, calibration=case.training()).calibration
    for step in case.deep:
        if isinstance(step, CodedWeights):
            model.calibration = case.original.calibration
        model = step(model)
        yield row(case, repr(step), model, started)


PARTS = {part.__name__: part for part in (palettes, rate, deep)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--parts", default=",".join(PARTS))
    options = parser.parse_args()
    for name in options.models.split(","):
        case = CASES[name]()
        for part in options.parts.split(","):
            table = Table(title=f"{name}: {part}")
            for column in ("", "ONNX file ÷", "packed ÷", "bits a weight", "SNR dB", "metric", "s"):
                table.add_column(column, justify="right" if column else "left")
            for line in PARTS[part](case):
                print(name, part, *line, sep="  ", file=sys.stderr, flush=True)
                table.add_row(*line)
            Console(width=140).print(table)


if __name__ == "__main__":
    main()
