"""Distributions: shared draws, the model's own error, ties."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import helper

from compress.estimator import Cost, Estimate, Profile, estimate, load, ratio
from compress.estimator.hardware import Quantity
from compress.estimator.uncertainty import DRAWS, MODEL_LOG_SD, factors, interval, standard


def chain(widths: tuple[int, ...], rows: int = 8, dtype: type = np.float32) -> onnx.ModelProto:
    """Linear layers from width to width."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    pairs = list(itertools.pairwise(widths))
    weights = [onnx.numpy_helper.from_array(np.ones(pair, dtype), f"w{i}") for i, pair in enumerate(pairs)]
    nodes = [
        helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"fc{i}")
        for i in range(len(pairs))
    ]
    x = helper.make_tensor_value_info("x0", kind, [rows, widths[0]])
    y = helper.make_tensor_value_info(f"x{len(pairs)}", kind, [rows, widths[-1]])
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def on(hardware: str | Profile, *widths: int) -> Estimate:
    return estimate(chain(widths), hardware)


def test_nine_of_ten_draws_lie_between_the_ends() -> None:
    drawn = factors("memories.dram.pj_per_bit", 0.5, 4.0)
    assert drawn[0] == 1
    assert np.median(drawn[1:]) == pytest.approx(1, rel=0.02)
    assert interval(drawn[1:]) == (pytest.approx(0.5, rel=0.02), pytest.approx(4.0, rel=0.02))
    assert (drawn == factors("memories.dram.pj_per_bit", 0.5, 4.0)).all()


def test_numbers_of_two_places_are_independent() -> None:
    names = [path for path, _ in load("tpu-v4i").quantities()]
    drawn = np.array([standard(name) for name in names])
    apart = np.corrcoef(drawn)[~np.eye(len(names), dtype=bool)]
    assert np.abs(apart).mean() < 0.06 and np.abs(apart).max() < 0.25


def test_the_same_work_is_sure_to_cost_the_same() -> None:
    found = ratio(estimate(chain((64, 64), dtype=np.float16), "tpu-v4i").total, on("tpu-v4i", 64, 64).total)
    assert found is not None
    assert (found.value, found.low, found.high, found.less) == (1, 1, 1, 0.5)
    assert not found.is_clear


def test_ratios_are_surer_than_joules() -> None:
    large, small = (on("cpu-arm", width, width, width).total for width in (512, 256))
    found = ratio(small, large)
    assert found is not None and found.is_clear and found.less > 0.99
    assert found.low < found.value < found.high
    assert found.high / found.low < large.energy_high / large.energy_low


def test_the_model_errs_by_as_much_for_any_number_of_layers() -> None:
    for count in (1, 2, 12):
        total = on("tpu-v4i", *range(64, 64 + 8 * (count + 1), 8)).total
        errors = np.log(total.energy_draws / total.drawn.joules)
        assert errors.std() == pytest.approx(MODEL_LOG_SD, rel=0.15)


def test_variants_err_together_where_their_layers_are_the_same() -> None:
    base = on("tpu-v4i", 256, 256, 256, 264)
    alike = on("tpu-v4i", 256, 256, 256, 200)
    other = on("tpu-v4i", 248, 248, 240, 232)
    near, far = (ratio(each.total, base.total) for each in (alike, other))
    assert near is not None and far is not None
    assert near.high / near.low < 0.8 * far.high / far.low


def test_a_small_step_is_a_tie_and_a_large_one_is_not() -> None:
    base, step, leap = (on("eyeriss-v1", width, width).total for width in (256, 248, 64))
    near, far = ratio(step, base), ratio(leap, base)
    assert near is not None and not near.is_clear
    assert far is not None and far.is_clear


def test_a_profile_may_know_the_error_of_its_model() -> None:
    profile = load("tpu-v4i")
    known = Quantity(value=0.01, tag="computed", scope="chip", source="project")
    surer = profile.model_copy(update={"model_error": known})
    wide, narrow = (on(each, 256, 256).total for each in (profile, surer))
    assert narrow.energy_high / narrow.energy_low < wide.energy_high / wide.energy_low


def test_scores_keep_the_draws() -> None:
    one, other = on("tpu-v4i", 256, 256), on("tpu-v4i", 128, 128)
    score = one.score()
    assert len(score.energy_draws) == DRAWS
    kept, live = ratio(score, other.score()), ratio(one.total, other.total)
    assert kept is not None and live is not None
    assert (kept.low, kept.high) == (pytest.approx(live.low, rel=1e-3), pytest.approx(live.high, rel=1e-3))


def test_nothing_has_no_ratio() -> None:
    assert ratio(on("tpu-v4i", 8, 8).total, Cost()) is None
