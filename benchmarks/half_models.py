"""Every pass on float16 copies of trained networks, beside the same pass on the float32 network.

``python benchmarks/half_models.py [NAME ...]``: onnxruntime's own converter makes the copies. For each pass
it prints how many layers it changed in either network, and the signal-to-noise ratio of either result
against the network it was made of. Passes that train are left out; `tests/contract` runs them on small ones.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from zoo import HERE, Entry, entry

import compress
from compress import passes
from compress.diagnose.agreement import agreement
from compress.errors import CompressError
from compress.model import Model
from compress.passes.base import Pass

NAMES = ("magika", "silero", "ppocr")
BATCHES = 2
PASSES: tuple[Pass, ...] = (
    passes.Fold(),
    passes.Int8Static(),
    passes.Int8Dynamic(),
    passes.Int8Weights(),
    passes.Int4Weights(),
    passes.Palettize(),
    passes.CodedWeights(),
    passes.Sparsify(),
    passes.Factorize(),
    passes.Equalize(),
    passes.Smooth(),
    passes.PruneChannels(ratio=0.2, importance="magnitude"),
    passes.FloatWeights(),
)


def both(one: Entry) -> Iterator[Model]:
    """Yield a network in float32 and in float16, with the same data."""
    data = list(one.calibration())[:BATCHES]
    with tempfile.TemporaryDirectory() as folder:
        single = compress.load(one.model, calibration=data, trust=True, home=HERE)
        path = single.save(Path(folder, "single.onnx"))
        half = convert_float_to_float16(onnx.load(path), keep_io_types=True)
        for proto in (onnx.load(path), half):
            yield compress.load(proto, calibration=data)


def result(each: Pass, model: Model) -> str:
    """Return how many layers a pass changed and how close its result is, in one cell."""
    try:
        small = each(model)
        layers = sum(bool(change.action) for change in small.changes)
        close = agreement(small.run, model.run, model.batches())
    except CompressError as error:
        return f"{error}"[:60]
    return f"{layers} layers, {close.snr_db if close.snr_db is None else round(close.snr_db, 1)} dB"


def main() -> None:
    """Print a line for each network and pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    for name in parser.parse_args().names:
        single, half = both(entry(name))
        for each in PASSES:
            print(f"{name:10} {each!s:50.50} {result(each, single):30} | {result(each, half)}", flush=True)


if __name__ == "__main__":
    main()
