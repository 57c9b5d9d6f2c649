"""Energy counters, and saying so where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from compress.estimator.meter import Meter, find_meter, measure
from compress.model import Model


def test_a_wrapped_counter_goes_on(tmp_path: Path) -> None:
    counter = tmp_path / "energy_uj"
    meter = Meter("RAPL", (counter,), (1_000_000,))
    counter.write_text("900000\n")
    before = meter.read()
    counter.write_text("150000\n")
    assert meter.joules(before, meter.read()) == 0.25


def test_without_a_meter_nothing_is_claimed() -> None:
    model = Model(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["": 21]> g (float[4] x) => (float[4] y) { y = Relu(x) }'
        )
    )
    found = measure(model, {"x": np.ones(4, np.float32)}, runs=3, idle_seconds=0.01)
    assert found.seconds > 0
    if isinstance(find_meter(), str):
        assert found.joules is None
        assert found.meter.startswith("not measured")
    else:
        assert found.joules is not None and found.joules >= 0
