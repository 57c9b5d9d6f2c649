"""Print what training wins back after pruning, and at few bits, on three trained networks.

``python benchmarks/training.py [resnet20] [digits] [legere]``: the score of each variant on data that
no pass has seen, what it has left of the original's multiplications, and its own processor time.
Rows named "trained" stand beside what the same bits or channels give without training.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resnet20
import torch
from ruamel.yaml import YAML

import compress
from compress.model import Model
from compress.passes.base import get
from compress.source import call

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
COUNTER = "eyeriss-v1"
"""Counts the graph's own multiplications; the CPU profile adds those of the padding in the runtime."""
LINES = 384
"""Lines of text that teach legere; nobody says what stands in them."""


@dataclass(frozen=True)
class Case:
    """A trained network, what teaches it, and its variants.

    Attributes:
        build: trains or reads it; what comes out is kept as a file.
        calibration: what passes may read.
        score: higher is better, on data that passes never read.
        variants: passes as a recipe writes them, by name.
    """

    build: Callable[[], Any]
    calibration: Callable[[], Iterable[Any]]
    score: Callable[[Model], float]
    variants: dict[str, str]


def accuracy(evaluation: Callable[[], Iterable[Any]]) -> Callable[[Model], float]:
    """Return what computes the share of labelled images that a model tells right."""

    def score(model: Model) -> float:
        name = model.graph.inputs[0].name or ""
        right = [
            model.run(feeds if isinstance(feeds, dict) else {name: feeds})[0].argmax(1) == labels
            for feeds, labels in evaluation()
        ]
        return float(np.concatenate(right).mean())

    return score


def lines() -> Iterator[dict[str, np.ndarray]]:
    """Yield lines of the news that the evaluation does not draw from."""
    feeds, part = _zoo("legere.py:_feeds"), _zoo("legere.py:_part")
    height, batch = _zoo("legere.py:HEIGHT"), _zoo("legere.py:BATCH")
    text = _zoo("news.py:calibration_text")()
    drawn = _zoo("text_lines.py:lines")(LINES, text, part("charset").CHARSET, 1, height)
    # Lines of like length share a batch, and little of it is padding.
    pictures = sorted((picture for picture, _ in drawn), key=lambda picture: picture.shape[1])
    for start in range(0, LINES, batch):
        yield feeds(pictures[start : start + batch])


def _zoo(reference: str) -> Any:
    return call(reference, home=HERE / "zoo", trust=True)


def cases() -> dict[str, Case]:
    """Return the networks by name."""

    def recipe(name: str) -> Any:
        return call(f"digits_cnn.py:{name}", home=HERE.parent / "recipes", trust=True)

    quantized = {
        "int4, float activations": "[int4-weights]",
        "4/8 bits, rounded": "[qat: {weight_bits: 4, learning_rate: 1.0e-12, epochs: 1}]",
    }
    return {
        "resnet20": Case(
            resnet20.build,
            resnet20.calibration,
            accuracy(resnet20.evaluation),
            {
                f"{name}{trained}": f"[prune-channels: {{ratio: {ratio}, of: macs}}{more}]"
                for name, ratio in (("2.5 times fewer", 0.6), ("8 times fewer", 0.875))
                for trained, more in (("", ""), (", trained", ", finetune: {}"))
            },
        ),
        "digits": Case(
            recipe("build"),
            recipe("calibration"),
            accuracy(recipe("evaluation")),
            {**quantized, "4/8 bits, trained": "[qat: {weight_bits: 4}]"},
        ),
        "legere": Case(
            _zoo("legere.py:build"),
            lines,
            lambda model: float(next(iter(_zoo("legere.py:metric")(model.run).values()))),
            {**quantized, "4/8 bits, trained": "[qat: {weight_bits: 4}]"},
        ),
    }


def load(name: str, case: Case) -> Model:
    """Return a network, trained once and kept."""
    path = CACHE / "training" / f"{name}.onnx"
    if not path.exists():
        compress.load(case.build(), calibration=case.calibration).save(path)
    return compress.load(path, calibration=case.calibration)


def passes(line: str) -> compress.Pipeline:
    """Return the passes of a line of a recipe."""
    found = []
    for each in YAML(typ="safe").load(line):
        name, settings = next(iter(each.items())) if isinstance(each, dict) else (each, {})
        found.append(get(name)(**settings))
    return compress.Pipeline(found)


def main() -> None:
    """Measure what the command line names, or everything."""
    torch.set_num_threads(1)
    known = cases()
    print(f"{'network':9} {'variant':26} {'score':>7} {'MACs':>6} {'cpu s':>6}")
    for name in sys.argv[1:] or known:
        case = known[name]
        original = load(name, case)
        macs = compress.estimate(original, COUNTER).total.macs
        for variant, line in {"original": "[]", **case.variants}.items():
            start = time.process_time()
            model = passes(line)(original)
            seconds = time.process_time() - start
            left = compress.estimate(model, COUNTER).total.macs / macs
            print(f"{name:9} {variant:26} {case.score(model):7.4f} {left:6.3f} {seconds:6.0f}", flush=True)


if __name__ == "__main__":
    main()
