"""The times of the runtime's kernels: what is fitted to them, and on what they are measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import HardwareError
from compress.estimator import load, trials
from compress.estimator.calibration import calibrate, timings
from compress.estimator.files import kernels_path
from compress.estimator.hardware import Number
from compress.estimator.kernels import ELEMENTS, Kernels, Timing, fit, kinds, of_this_machine
from compress.estimator.mapping import Loops
from compress.estimator.workload import LayerWork, Operand
from compress.graph.session import session


def layer(rows: int, width: int, op_type: str = "MatMul", is_weight: bool = True) -> LayerWork:
    sizes = {"x": rows * width, "w": width * width, "y": rows * width}
    x, w, y = (Operand(name, size, 4.0 * size, is_weight and name == "w") for name, size in sizes.items())
    loops = Loops(m=width, c=width, out=(rows, 1))
    return LayerWork(op_type, op_type, Number("float", 32), loops, x, w, y, produces="y")


@given(st.lists(st.floats(1e-12, 1e-9), min_size=5, max_size=5), st.floats(1e-7, 1e-5))
def test_a_fit_finds_the_constants_that_times_were_made_of(rates: list[float], call: float) -> None:
    constants = (call, *rates)
    sizes = [(1 + 7 * (k % 5), 16 * (1 + k)) for k in range(12)]
    layers = [layer(*size) for size in sizes]
    true = Kernels("", {kinds(layers[1])[0]: constants, kinds(layers[0])[0]: constants})
    found = fit("here", [Timing(each, true.seconds(each)) for each in layers])
    for rows, width in ((8, 100), (20, 50)):
        asked = layer(rows, width)
        assert found.seconds(asked) == pytest.approx(true.seconds(asked), rel=1e-3)


def test_one_disturbed_time_changes_little() -> None:
    layers = [layer(2 + k, 64 + 8 * k) for k in range(20)]
    true = Kernels("", {kinds(layers[0])[0]: (1e-6, 0.0, 1e-10, 0.0, 1e-10, 0.0)})
    taken = [Timing(each, true.seconds(each)) for each in layers]
    taken[7] = replace(taken[7], seconds=taken[7].seconds * 20)
    found = fit("here", taken)
    assert found.seconds(layers[15]) == pytest.approx(true.seconds(layers[15]), rel=0.05)


def test_unknown_kernels_take_as_long_as_those_alike() -> None:
    known = fit("here", [Timing(layer(2 + k, 32 * (1 + k)), 1e-6 * (1 + k)) for k in range(12)])
    unheard = layer(4, 64, "NewMatMul")
    assert known.seconds(unheard) == pytest.approx(known.seconds(layer(4, 64)), rel=1e-3)
    plain = [LayerWork("a", "Add", Number("float", 32), ops=10.0 * k, produces="y") for k in range(1, 9)]
    both = fit("here", [Timing(each, 1e-6) for each in plain])
    assert both.constants[ELEMENTS] == both.constants["Add"]


def test_few_positions_leave_lanes_empty() -> None:
    def seconds(outputs: int, *out: int, kernel: tuple[int, int] = (1, 3)) -> float:
        loops = Loops(m=outputs, c=32, out=out, kernel=kernel)
        return known.seconds(LayerWork("c", "Conv", Number("float", 32), loops))

    known = Kernels("", {"product float32": (0.0, 0.0, 1e-9, 0.0, 0.0, 0.0), ELEMENTS: (0.0,) * 6})
    assert seconds(32, 1, 5) == pytest.approx(seconds(32, 1, 8))
    assert seconds(32, 1, 9) == pytest.approx(seconds(32, 1, 16))
    assert seconds(32, 1, 1) == pytest.approx(seconds(32, 1, 8) / 2)
    blocked, odd = (seconds(width, 2, 2, kernel=(3, 3)) / width for width in (32, 33))
    assert odd == pytest.approx(2 * blocked)


def test_constants_survive_their_file(tmp_path: Path) -> None:
    each = (1e-6, 0.0, 2e-10, 0.0, 3e-11, 0.5)
    kernels = Kernels("a machine", {"MatMul": each, ELEMENTS: each})
    kernels.save(tmp_path / "kernels.json")
    assert Kernels.load(tmp_path / "kernels.json") == kernels
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.json"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"machine": "", "kernels": {"MatMul": [1]}}', '{"machine": "", "kernels": {}}', "\0"],
)
def test_a_damaged_file_of_constants_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    path.write_text(content)
    with pytest.raises(HardwareError, match=r"kernels\.json: no kernel times: .*calibrate"):
        Kernels.load(path)


def test_calibration_is_kept_for_this_machine_and_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few = [next(iter(trials.networks()))]
    monkeypatch.setattr(trials, "networks", lambda: few)
    try:
        found, path = calibrate(load("cpu"))
        assert path.is_relative_to(tmp_path) and kernels_path() == path
        assert of_this_machine() == found and found.machine
        assert found.constants[ELEMENTS] and any(name.startswith("Conv") for name in found.constants)
    finally:
        of_this_machine.cache_clear()


def test_every_trial_runs_and_is_the_same_each_time() -> None:
    once, again = (list(trials.networks()) for _ in range(2))
    assert [each.SerializeToString() for each in once] == [each.SerializeToString() for each in again]
    for proto in once:
        session(ir.from_proto(proto), threads=1)


def test_timings_tell_each_layer_of_a_network() -> None:
    lstm = next(each for each in trials.networks() if any(node.op_type == "LSTM" for node in each.graph.node))
    found = list(timings(lstm, load("cpu")))
    names = {each.layer.name.partition("/")[0] for each in found}
    assert {name.rstrip("0123456789") for name in names} >= {"LSTM", "GRU"}
    assert all(each.seconds > 0 for each in found)
    steps = [each.layer.steps for each in found if each.layer.op_type == "LSTM"]
    assert max(steps) > 1, "the recurrent part runs once a step"
    assert np.isfinite([each.seconds for each in found]).all()
