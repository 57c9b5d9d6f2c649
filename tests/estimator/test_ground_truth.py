"""The estimator against published measurements; the benchmark prints the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import alexnet
import boards
import cachegrind
import eyeriss
import ground_truth as truth
import h100
import mapper
import measured
import mlperf_tiny
import numpy as np
import pytest

from compress.estimator import estimate, load


def errors(check: Callable[[], Iterator[truth.Row]]) -> dict[str, float]:
    """Relative error of every row."""
    return {row.check: row.error for row in check()}


L4R5 = load("stm32l4r5")


def test_the_law_goes_through_both_points() -> None:
    a, leaking = truth.voltage_law((0.65, 1e-3, 30e-6), (0.8, 0.6e-3, 42e-6))
    for volts, seconds, joules in ((0.65, 1e-3, 30e-6), (0.8, 0.6e-3, 42e-6)):
        assert a * volts**2 + leaking * volts * seconds == pytest.approx(joules)
    with pytest.raises(ValueError, match="same voltage"):
        truth.voltage_law((0.8, 1e-3, 1e-6), (0.8, 1e-3, 2e-6))


def test_dram_traffic_matches_eyeriss() -> None:
    found = errors(truth.eyeriss_alexnet_traffic)
    assert max(map(abs, found.values())) < 0.08
    assert abs(found["total"]) < 0.04
    assert abs(errors(truth.eyeriss_vgg16_traffic)["total"]) < 0.08


def test_energy_of_vgg16_at_modelled_seconds_follows_from_alexnet() -> None:
    found = errors(truth.eyeriss_vgg16_energy)
    assert abs(found["total"]) < 0.05
    # Half of the time of 1-1 is a wait for DRAM that its traffic does not explain.
    assert max(abs(error) for name, error in found.items() if name != "1-1") < 0.18


def test_the_shipped_numbers_of_eyeriss_are_the_fit_to_alexnet() -> None:
    fitted, shipped = eyeriss.fit(list(alexnet.LAYERS)), load("eyeriss-v1")
    again = dict(fitted.quantities())
    for path, quantity in shipped.quantities():
        assert again[path].value == pytest.approx(quantity.value, rel=0.005), path


def test_a_layer_left_out_of_alexnet() -> None:
    assert abs(errors(truth.eyeriss_alexnet_layer_left_out)["total"]) < 0.05


def test_efficiency_follows_the_voltage() -> None:
    assert max(map(abs, errors(truth.eyeriss_voltages).values())) < 0.02


@pytest.mark.parametrize("check", [truth.gap9_voltages, truth.ndp9120_voltages])
def test_one_network_tells_the_others_at_another_voltage(check: Callable[[], Iterator[truth.Row]]) -> None:
    assert max(map(abs, errors(check).values())) < 0.05


def test_no_more_traffic_than_zigzag() -> None:
    for layer in mapper.LAYERS:
        assert mapper.traffic(layer.loops) <= layer.zigzag_bytes


def test_chips_match_what_they_were_fitted_to() -> None:
    assert max(map(abs, errors(truth.chips).values())) < 0.25


def test_a_network_left_out_of_a_board() -> None:
    rows = [row for row in boards.of_st() if row.board == "NUCLEO_L4R5ZI-P"]
    found = [
        cost.energy_joules / (row.joules or 0.0) - 1 for row, cost in boards.network_left_out(rows, L4R5)
    ]
    assert np.median(np.abs(found)) < 0.15
    assert np.abs(found).max() < 0.3


def test_a_board_left_out() -> None:
    found = errors(truth.boards_board_left_out)
    assert np.median(np.abs(list(found.values()))) < 0.1


def test_boards_of_one_core_differ_by_their_clock() -> None:
    fast, slow = (boards.modelled("ic", hardware).seconds for hardware in ("stm32u575", "stm32u385"))
    assert slow / fast == pytest.approx(160 / 96)
    assert boards.modelled("ic", "stm32h7").seconds < fast


def test_int8_over_float32_on_a_cortex_m4() -> None:
    assert max(map(abs, errors(truth.float_ratios).values())) < 0.2


def test_energy_is_time_at_the_power_of_the_supply() -> None:
    linear = L4R5.model_copy(
        update={"supply_efficiency": L4R5.supply_efficiency and L4R5.supply_efficiency.times(0.5)}
    )
    one, other = (estimate(boards.graph("kws"), profile).total for profile in (L4R5, linear))
    assert other.energy_joules == pytest.approx(2 * one.energy_joules)
    assert other.seconds == one.seconds


@pytest.mark.parametrize("batch", [16.0, 63.9])
def test_tokens_on_h100_by_batch_and_tensor_parallel_size(batch: float) -> None:
    for row in measured.tokens():
        if row.batch == batch and row.model in ("Llama-3.1-70B-Instruct", "gemma-3-27b-it"):
            joules = h100.cost(load("h100"), row).energy_joules / row.batch
            assert joules == pytest.approx(row.joules, rel=0.1)


@pytest.mark.slow
def test_a_model_left_out_of_h100() -> None:
    found = np.abs(list(errors(truth.h100_model_left_out).values()))
    assert np.median(found) < 0.1
    assert found.max() < 0.2


@pytest.mark.slow
def test_h100_has_the_numbers_of_its_fit() -> None:
    shipped, fitted = load("h100"), h100.fit(measured.tokens())
    assert shipped.attention_efficiency is not None
    assert shipped.attention_efficiency.value == pytest.approx(fitted.attention_efficiency)
    assert shipped.leakage_watts is not None
    assert shipped.leakage_watts.value == pytest.approx(fitted.leakage_watts, rel=0.01)


def test_tokens_a_second_on_a_jetson() -> None:
    found = errors(truth.jetson_rates)
    assert np.median(np.abs(list(found.values()))) < 0.2
    assert max(map(abs, found.values())) < 0.3


def test_a_sparse_mobilenet_on_eyeriss_v2_lies_between_none_and_half_of_the_zeros() -> None:
    graph = mlperf_tiny.mobilenet(0.5, 128, 1000)
    weights = [weight.name for weight in graph.graph.initializer if len(weight.dims) > 1]
    results = [name for node in graph.graph.node if node.op_type == "QuantizeLinear" for name in node.output]
    dense = estimate(graph, "eyeriss-v2").total
    sparse = estimate(graph, "eyeriss-v2", zeros=dict.fromkeys([*weights, *results], 0.5)).total
    assert sparse.seconds < 1 / 1470.6 < dense.seconds
    assert sparse.energy_joules < 1 / 2560.3 < dense.energy_joules
    assert sparse.dram_bytes < dense.dram_bytes


def test_timeloops_mappings_give_timeloops_words() -> None:
    assert max(map(abs, errors(truth.timeloop_designs).values())) < 0.01


@pytest.mark.parametrize("name", cachegrind.RECORDED)
def test_memory_fills_match_cachegrind(name: str) -> None:
    assert cachegrind.estimated(name) == pytest.approx(cachegrind.RECORDED[name], rel=0.25)
