"""Score one quantized file of a network of the zoo against float, and print JSON.

``python quantization_score.py ENTRY FLOAT.onnx VARIANT.onnx``: the network's metric on its evaluation
data, the cosine of the first output to float's, and processor time over float's, the two taking
turns in one process on one thread.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
from zoo import Entry, Feeds, Run, entry

from compress.diagnose.agreement import cosine
from compress.diagnose.timing import processor_ratio
from compress.graph import batch
from compress.graph.session import session

COMPARED_BATCHES = 24
TIMED_SECONDS = 4.0


def runner(path: Path) -> Run:
    """Return a function that runs the file on one thread."""
    opened = session(path, threads=1)
    return lambda feeds: opened.run(None, feeds)


def closeness(network: Entry, original: Run, variant: Run) -> float:
    """Return the mean cosine of the rows of the first output."""
    rows = []
    for feeds in itertools.islice(network.evaluation(), COMPARED_BATCHES):
        rows.append(cosine(variant(feeds)[0], original(feeds)[0]).reshape(-1))
    return float(np.concatenate(rows).mean())


def one_sample(network: Entry, path: Path) -> Feeds:
    """Return the first sample of the evaluation data."""
    feeds, opened = next(iter(network.evaluation())), session(path, threads=1)
    return batch.find(lambda each: opened.run(None, each), opened.get_inputs(), [feeds]).sample(feeds)


def main(name: str, float_file: Path, variant_file: Path) -> None:
    """Print the scores."""
    network = entry(name)
    original, variant = runner(float_file), runner(variant_file)
    scores = {
        "metric": network.metric(variant),
        "cosine": closeness(network, original, variant),
        "latency_one": processor_ratio(variant, original, one_sample(network, float_file), TIMED_SECONDS),
        "latency_batch": processor_ratio(variant, original, next(iter(network.calibration())), TIMED_SECONDS),
    }
    print(json.dumps(scores))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:4]))
