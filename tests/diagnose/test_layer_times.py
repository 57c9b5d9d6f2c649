"""The time of layers, as the runtime's profile tells it."""

from __future__ import annotations

import pytest

from compress.diagnose.layer_times import layer_times
from compress.graph.layers import layers
from compress.model import Model
from compress.passes import Fold, Int8Static


@pytest.mark.parametrize("quantized", [False, True])
def test_the_time_of_a_run_is_that_of_its_layers(digits: Model, quantized: bool) -> None:
    model = Fold()(digits)
    names = [layer.name for layer in layers(model.graph)]
    run = Int8Static(calibration="minmax")(model) if quantized else model
    times = layer_times(run.ir, names, next(model.batches()))
    assert set(times) <= {*names, ""} and set(names) <= set(times)
    assert all(0 < times[name] < 1 for name in names)
    assert times.get("", 0) < sum(times[name] for name in names)
