"""Print what rounding learnt by layers and by blocks is worth on ResNet-20 and EfficientNet-Lite0.

``python benchmarks/rounding.py [--networks resnet20,efficientnet_lite0] [--bits 4] [--methods gptq,blocks]``:
for `int8-static` with weights of so many bits, the share of evaluation images told right, the agreement of
the outputs with float's in decibels, and processor seconds. On a processor with AVX2 and weights of 4 bits:

                      float  gptq                 learned              blocks
  resnet20            .980   .979  30.7 dB  29 s  .979  31.9 dB  63 s  .979  35.5 dB  78 s
  efficientnet_lite0  .915   .710  3.4 dB   18 s  .750  3.7 dB  369 s  .770  4.3 dB  311 s

Two points of EfficientNet's accuracy are noise. Most is lost in its 1 x 1 convolutions: with crops of one
calibration picture for GPTQ and of the other to judge, 4 bits in their weights alone leave 5.0 dB, in those
of depthwise convolutions 11.4, in the first layer and the last 19.5. Weights of 7 bits and activations of 8
leave 17.7.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import resnet20
from quantization import prepare
from rich.console import Console
from rich.table import Table
from zoo import efficientnet_lite0, entry

import compress
from compress.graph.session import session
from compress.model import Model
from compress.passes import Int8Static

CACHE = Path(__file__).parent / ".cache"


def network(name: str) -> tuple[Model, list[Any]]:
    """Return a trained network with its calibration data, and its evaluation data with labels."""
    if name == "resnet20":
        path = CACHE / name / "float.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            compress.load(resnet20.build(), calibration=resnet20.calibration).save(path)
        return compress.load(path, calibration=resnet20.calibration), list(resnet20.evaluation())
    known = entry(name)
    path = prepare(known) / "float.onnx"
    return compress.load(path, calibration=known.calibration), list(efficientnet_lite0._labelled())


def outputs(model: Model, evaluation: Iterable[Any]) -> tuple[np.ndarray, float]:
    """Return the logits, and the share of images that they tell right."""
    opened = session(model.ir, threads=1)
    name = model.graph.inputs[0].name
    found, right = [], []
    for images, labels in evaluation:
        found.append(opened.run(None, images if isinstance(images, dict) else {name: images})[0])
        right.append(found[-1].argmax(1) == labels)
    return np.concatenate(found), float(np.concatenate(right).mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", default="resnet20,efficientnet_lite0")
    parser.add_argument("--bits", default="4")
    parser.add_argument("--methods", default="nearest,gptq,learned,blocks")
    parser.add_argument("--calibration", default="mse")
    options = parser.parse_args()
    for name in options.networks.split(","):
        model, evaluation = network(name)
        wanted, score = outputs(model, evaluation)
        table = Table("weights", "rounding", "accuracy", "dB", "s", title=f"{name}, float {score:.4f}")
        for bits in map(int, options.bits.split(",")):
            for method in options.methods.split(","):
                start = time.process_time()
                made = Int8Static(weight_bits=bits, rounding=method, calibration=options.calibration)(model)
                seconds = time.process_time() - start
                found, score = outputs(made, evaluation)
                close = 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())
                row = [f"{bits} bits", method, f"{score:.4f}", f"{close:.1f}", f"{seconds:.0f}"]
                table.add_row(*row)
                print(name, *row, flush=True)
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
