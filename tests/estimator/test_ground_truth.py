"""The estimator against published measurements; the benchmark prints the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import alexnet
import cachegrind
import ground_truth as truth
import mapper
import numpy as np
import pytest

from compress.estimator import estimate


def errors(check: Callable[[], Iterator[truth.Row]]) -> dict[str, float]:
    """Relative error of every row."""
    return {row.check: row.error for row in check()}


def mean(found: dict[str, float]) -> float:
    """Mean absolute error of the layers."""
    return float(np.abs([error for name, error in found.items() if name != "total"]).mean())


def test_the_law_goes_through_both_points() -> None:
    a, leaking = truth.voltage_law((0.65, 1e-3, 30e-6), (0.8, 0.6e-3, 42e-6))
    for volts, seconds, joules in ((0.65, 1e-3, 30e-6), (0.8, 0.6e-3, 42e-6)):
        assert a * volts**2 + leaking * volts * seconds == pytest.approx(joules)
    with pytest.raises(ValueError, match="same voltage"):
        truth.voltage_law((0.8, 1e-3, 1e-6), (0.8, 1e-3, 2e-6))


def test_dram_traffic_matches_eyeriss() -> None:
    found = errors(truth.eyeriss_traffic)
    assert max(map(abs, found.values())) < 0.08
    assert abs(found["total"]) < 0.04


def test_energy_at_measured_seconds_matches_eyeriss() -> None:
    found = errors(truth.eyeriss_energy_at_measured_seconds)
    assert mean(found) < 0.04
    assert abs(found["total"]) < 0.02


def test_energy_at_modelled_seconds_matches_eyeriss() -> None:
    found = errors(truth.eyeriss_energy)
    # C5 ran a sixth faster than its twin C4 would have it; the others are within 4 %.
    assert max(abs(found[name]) for name in ("C1", "C2", "C3", "C4")) < 0.04
    assert mean(found) < 0.05
    assert abs(found["total"]) < 0.02


def test_seconds_match_eyeriss() -> None:
    measured = sum(alexnet.MEASURED_MILLISECONDS.values()) * 1e-3
    modelled = estimate(
        alexnet.model(), "eyeriss-v1", shapes=alexnet.SHAPES, zeros=alexnet.zeros()
    ).total.seconds
    assert modelled == pytest.approx(measured, rel=0.02)


def test_efficiency_follows_the_voltage() -> None:
    assert max(map(abs, errors(truth.eyeriss_voltages).values())) < 0.02


@pytest.mark.parametrize("check", [truth.gap9_voltages, truth.ndp9120_voltages])
def test_one_network_tells_the_others_at_another_voltage(check: Callable[[], Iterator[truth.Row]]) -> None:
    assert max(map(abs, errors(check).values())) < 0.05


def test_one_network_tells_the_others_on_ndp9120() -> None:
    assert max(map(abs, errors(truth.ndp9120_from_one_network).values())) < 0.05


def test_no_more_traffic_than_zigzag() -> None:
    for layer in mapper.LAYERS:
        assert mapper.traffic(layer.loops) <= layer.zigzag_bytes


@pytest.mark.parametrize("check", [truth.boards, truth.refitted_boards])
def test_profiles_match_the_boards_they_were_fitted_to(check: Callable[[], Iterator[truth.Row]]) -> None:
    found = errors(check)
    by_board: dict[str, list[float]] = {}
    for name, error in found.items():
        by_board.setdefault(name.split()[0], []).append(abs(error))
    assert {board: float(np.mean(each)) < 0.25 for board, each in by_board.items()} == dict.fromkeys(
        by_board, True
    )


def test_timeloops_mappings_give_timeloops_words() -> None:
    assert max(map(abs, errors(truth.timeloop_designs).values())) < 0.01


def test_int8_over_fp16_on_a_gpu() -> None:
    assert abs(errors(truth.h200_bert)["int8 over fp16"]) < 0.10


@pytest.mark.parametrize("name", cachegrind.RECORDED)
def test_memory_fills_match_cachegrind(name: str) -> None:
    assert cachegrind.estimated(name) == pytest.approx(cachegrind.RECORDED[name], rel=0.25)
