"""MLPerf Tiny's boards: profiles asked about networks and boards that they were not fitted to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from statistics import fmean, geometric_mean

import measured
import mlperf_tiny
import onnx_ir as ir
from measured import Inference

from compress.estimator import Cost, Profile, estimate, load
from compress.estimator.fitting import Measurement, fit

ST = {
    "NUCLEO_L4R5ZI": "stm32l4r5",
    "NUCLEO_L4R5ZI-P": "stm32l4r5",
    "NUCLEO_U575ZI_Q": "stm32u575",
    "NUCLEO_U385RG_Q": "stm32u385",
}
"""The profile of each of ST's boards; the first board has another supply than its profile."""
OTHERS = {
    "v1.0, OctoML": "stm32l4r5",
    "v1.0, STMicroelectronics": "stm32l4r5",
    "v1.1, STMicroelectronics": "stm32l4r5",
    "v1.1, Krai": "stm32l4r5",
    "v1.1, Skymizer": "stm32l4r5",
    "v1.0, silicon_labs": "stm32u575",
}
"""Other boards, supplies and firmware, and the profile that a fit starts from."""
KINDS: tuple[mlperf_tiny.Kind, ...] = ("int8", "float32")
FLOATS = "CY8CPROTO-062-4343W (Cortex-M4)"


def of_st() -> tuple[Inference, ...]:
    """Return the rows that the profiles' rates are fitted to."""
    return measured.inferences("v1.2, STMicroelectronics") + measured.inferences("v1.3, STMicroelectronics")


@cache
def graph(network: str, kind: mlperf_tiny.Kind = "int8") -> ir.Model:
    """Return a network, read once."""
    return ir.from_proto(mlperf_tiny.NETWORKS[network](kind))


@cache
def modelled(network: str, hardware: str) -> Cost:
    """Return the estimate of a profile as it is shipped."""
    return estimate(graph(network), hardware).total


def network_left_out(rows: Iterable[Inference], start: Profile) -> Iterator[tuple[Inference, Cost]]:
    """Yield every row of one board, and what a fit to its other networks makes of it."""
    rows = list(rows)
    for row in rows:
        others = [
            Measurement(graph(one.network), one.joules or 0.0, one.seconds) for one in rows if one is not row
        ]
        yield row, estimate(graph(row.network), fit(start, others).profile).total


def board_left_out() -> Iterator[tuple[Inference, float]]:
    """Yield every row of ST's boards, and its joules from the cycles of the other boards.

    Given are the board's clock, its core, and its mean power.
    """
    rows = of_st()
    for board in ST:
        own = [row for row in rows if row.board == board]
        slower = geometric_mean(
            row.seconds / modelled(row.network, ST[row.board]).seconds for row in rows if row.board != board
        )
        for source in sorted({row.source for row in own}):
            of_round = [row for row in own if row.source == source]
            watts = fmean((row.joules or math.nan) / row.seconds for row in of_round)
            for row in of_round:
                yield row, modelled(row.network, ST[board]).seconds * slower * watts


def float_ratios() -> dict[str, float]:
    """Return measured seconds in int8 over seconds in float32 on one Cortex-M4, by network."""
    rows = {
        (row.network, row.format): row for row in measured.inferences("Bosch (HALE)") if row.board == FLOATS
    }
    networks = {network for network, _ in rows}
    return {name: rows[name, "int8"].seconds / rows[name, "float32"].seconds for name in sorted(networks)}


def float_ratio_left_out(network: str) -> float:
    """Return that ratio as it is estimated."""
    int8, floats = float_costs_left_out(network)
    return int8.seconds / floats.seconds


def float_costs_left_out(network: str) -> tuple[Cost, Cost]:
    """Return the costs in int8 and float32, at the float rate that the other networks tell."""
    profile = load("stm32l4r5")
    known = [ratio for name, ratio in float_ratios().items() if name != network]
    int8, fp32 = profile.arithmetic["int8"], profile.arithmetic["fp32"]
    slower = int8.macs_per_second.value * geometric_mean(known)
    floats = fp32.model_copy(
        update={"macs_per_second": fp32.macs_per_second.times(slower / fp32.macs_per_second.value)}
    )
    board = profile.model_copy(update={"arithmetic": {"int8": int8, "fp32": floats}})
    int8_cost, float_cost = (estimate(graph(network, kind), board).total for kind in KINDS)
    return int8_cost, float_cost
