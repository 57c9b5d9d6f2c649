"""Removed equals zeroed on the trained networks of the benchmarks, whatever framework wrote their files."""

from pathlib import Path

import numpy as np
import pytest

import compress
from compress.prune.coupling import Coupling
from compress.source import call

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ENTRIES = call("zoo/__init__.py:ENTRIES", home=BENCHMARKS, trust=False)

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_removing_channels_equals_zeroing_them(entry, zeroed):
    brought = compress.load(entry.model, calibration=entry.calibration, home=BENCHMARKS / "zoo", trust=True)
    original = brought.prepared()
    feeds = next(original.batches())
    model = original.copy()
    coupling = Coupling(model.ir, {name: array.shape for name, array in feeds.items()})
    keep = {}
    for group in coupling.groups:
        taken = any(other.leaf in group.rivals for other in keep)
        if not group.obstacle and group.kind != "embedding" and not taken:
            keep[group] = np.arange(group.size) % 2 == 0
    wanted = zeroed(original, keep).run(feeds)
    coupling.removal(keep).apply(model.graph)
    assert model.weight_bytes < 0.85 * original.weight_bytes
    for got, want in zip(model.run(feeds), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3 * np.abs(want).max())
