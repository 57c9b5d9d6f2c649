"""Print the time of compressed networks over the original's on this machine: predicted and measured.

``python benchmarks/energy/cpu_time.py [--models minilm,lac]``: the networks of ``benchmarks/zoo`` and
ResNet-20, in 8 bits by three passes, in 4, in halves, and with channels pruned to 75, 50 and 25 %. The
prediction is that of the profile cpu: small networks that have nothing to do with these were timed, see
`compress hardware calibrate`. Measured is processor time on one thread, the two taking turns. No constant is
fitted to these rows; which layers the small networks have was widened, by kernels along one axis and by
widths that fill no blocks, after seeing where rows of this table were off.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the other benchmarks

import resnet20
from quantization import prepare
from zoo import ENTRIES, entry

import compress
from compress.data import Feeds
from compress.diagnose.timing import processor_ratio, processor_time
from compress.errors import CompressError
from compress.graph import batch
from compress.graph.session import session
from compress.model import Model
from compress.passes import (
    FloatWeights,
    Int8Dynamic,
    Int8Static,
    Int8Weights,
    IntegerWeights,
    PruneChannels,
)
from compress.passes.base import Pass

PASSES: tuple[Pass, ...] = (
    Int8Static(),
    Int8Dynamic(),
    Int8Weights(),
    IntegerWeights(),
    FloatWeights(),
    *(PruneChannels(ratio=ratio) for ratio in (0.25, 0.5, 0.75)),
)
SECONDS = 1.0
"""Time of a measurement."""


def networks(names: list[str]) -> Iterator[tuple[str, Model]]:
    """Yield the networks with their calibration data."""
    for name in names:
        if name == "resnet20":
            yield name, compress.load(resnet20.build(), calibration=resnet20.calibration)
        else:
            known = entry(name)
            yield name, compress.load(prepare(known) / "float.onnx", calibration=known.calibration)


def sample(model: Model) -> Feeds:
    """Return one sample of the calibration data."""
    assert model.calibration is not None
    first, run = next(model.batches()), partial(session(model.ir, threads=1).run, None)
    return batch.find(run, model.graph.inputs, [first], model.calibration.batch_axis).sample(first)


def predicted(model: Model, feeds: Feeds) -> float:
    """Return the seconds of a run as the profile cpu has them."""
    shapes = {name: array.shape for name, array in feeds.items()}
    return compress.estimate(model, "cpu", shapes=shapes).total.seconds


def main() -> None:
    """Predict, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    known = [each.name for each in ENTRIES if each.name not in ("smollm2", "magika")]
    parser.add_argument("--models", default=",".join([*known, "resnet20"]))
    options = parser.parse_args()
    table, ratios = Table("network", "variant", "predicted", "measured", "off by"), []
    for name, model in networks(options.models.split(",")):
        feeds = sample(model)
        run = partial(session(model.ir, threads=1).run, None)
        base, taken = predicted(model, feeds), processor_time(lambda run=run, feeds=feeds: run(feeds))
        table.add_row(
            name, "float", f"{base * 1e3:.2f} ms", f"{taken * 1e3:.2f} ms", f"{base / taken - 1:+.0%}"
        )
        for each in PASSES:
            print(f"{name}: {each}", file=sys.stderr, flush=True)
            try:
                variant = each(model)
            except CompressError as error:
                table.add_row("", str(each), str(error)[:60])
                continue
            if not variant.is_prepared:
                continue
            theirs = partial(session(variant.ir, threads=1).run, None)
            pair = predicted(variant, feeds) / base, processor_ratio(theirs, run, feeds, SECONDS)
            ratios.append(pair)
            table.add_row("", str(each), *(f"{ratio:.2f}" for ratio in pair), f"{pair[0] / pair[1] - 1:+.0%}")
    Console().print(table)
    guesses, facts = np.array(ratios).T
    off = np.abs(guesses / facts - 1)
    print(
        f"{len(off)} pairs: median {np.median(off):.1%} off, nine of ten within {np.quantile(off, 0.9):.0%}, "
        f"worst {off.max():.0%}; rank correlation {spearmanr(guesses, facts).statistic:.2f}"
    )


if __name__ == "__main__":
    main()
