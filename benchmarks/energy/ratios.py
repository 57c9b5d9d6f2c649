"""What compression saved on silicon beside what the score says: ``benchmarks/energy/ratios.py [--measure]``.

Every row is a ratio of two measurements on one device, and the same ratio as it is estimated with its 90 %
interval. No number was fitted to a *predicted* row; for a *left out* one the fit was made anew without its
network. The error of the model in an interval is what rows of other networks tell, see ``rows.py``.

Two ratios would be identities and are not here: int8 over float16 of BERT on an H200, and 3-bit keyword
spotting over ResNet-8 on a Pynq-Z2, because the rates of both profiles were fitted to just these runs.

The times of the processor's pairs were measured once and are kept; ``--measure`` times them on this machine
instead, in half an hour. Their prediction is that of the profile ``cpu``, whose kernels were timed with small
networks that have nothing to do with these.
"""

from __future__ import annotations

import argparse
import math
import runpy
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import alexnet
import boards
import cpu_pairs
import ground_truth as truth
import mlperf_tiny
import numpy as np
from cpu_pairs import Pair
from rows import Row, log_sd
from scipy.stats import spearmanr

from compress.estimator import Estimate, estimate, load

SEPARATES = 0.05
"""How far from 1 a published ratio must be, so that it is sure which of the two takes less."""


@dataclass(frozen=True)
class Ratio:
    """A row, and by how much the model errs according to others."""

    row: Row
    log_sd: float
    certain: bool = True
    """Whether all measurements agree which of the two takes less."""

    @property
    def separated(self) -> bool:
        """Whether the measurement says which of the two takes less."""
        return self.certain and abs(math.log(self.row.published)) > (self.row.noise or SEPARATES)

    @property
    def sign_right(self) -> bool:
        """Whether the estimate says the same."""
        return (self.row.estimated < 1) == (self.row.published < 1)

    @property
    def inside(self) -> bool | None:
        """Whether the measured ratio lies in the interval; None where the estimate has none."""
        return self.row.is_inside(self.log_sd) if self.row.cost is not None else None

    def __str__(self) -> str:
        row = self.row
        span = " ".join(f"{end:6.3f}" for end in row.interval(self.log_sd)) if row.cost is not None else ""
        sign = ("right" if self.sign_right else "WRONG") if self.separated else "-"
        held = {True: "inside", False: "outside", None: ""}[self.inside]
        figures = f"{row.published:8.3f} {row.estimated:8.3f}  {span:13} {row.error:+7.1%}"
        return f"  {row.check:48} {figures}  {sign:5}  {held:7}  {row.origin}"


def cortex_m4() -> Iterator[Ratio]:
    """Time of int8 over float32."""
    error = load("stm32l4r5").log_sd
    for network, published in boards.float_ratios().items():
        int8, floats = boards.float_costs_left_out(network)
        ratio = int8.seconds / floats.seconds
        yield Ratio(
            Row(f"{network}, int8 over float32", ratio, published, "", "left out", int8, floats), error
        )


def pynq() -> Iterator[Ratio]:
    """Energy of FINN's binary network over ResNet-8 in 8 bits; both classify the same images."""
    binary, int8 = (
        estimate(model, "pynq-z2").total for model in (mlperf_tiny.cnv(), mlperf_tiny.image_classification())
    )
    ratio = binary.energy_joules / int8.energy_joules
    row = Row("CNV, W1A1, over ResNet-8, int8", ratio, 2530 / 44191, "", "predicted", binary, int8)
    yield Ratio(row, load("pynq-z2").log_sd)


def eyeriss_zeros() -> Iterator[Ratio]:
    """What zeros save on AlexNet: traffic by run-length coding, and energy of the gated units."""

    def found(zeros: dict[str, float]) -> Estimate:
        return estimate(alexnet.model(), "eyeriss-v1", shapes=alexnet.SHAPES, zeros=zeros)

    with_zeros, dense = found(alexnet.zeros()), found(dict.fromkeys(alexnet.zeros(), 0.0))
    coded = [
        one.cost.dram_bytes / other.cost.dram_bytes
        for one, other in zip(with_zeros.layers, dense.layers, strict=True)
    ]
    for name, ratio, published in (("most", max(coded), 1 / 1.2), ("least", min(coded), 1 / 1.9)):
        yield Ratio(Row(f"AlexNet, run-length coded, the layer with {name}", ratio, published, ""), 0.0)
    gated = with_zeros.total.energy["compute"] / dense.total.energy["compute"]
    yield Ratio(Row("AlexNet, zeros gated, units", gated, 1 - 0.45, ""), 0.0)


def h100_scaling() -> Iterator[Ratio]:
    """Energy of a generated token over that at a batch of 8, and on two GPUs over one."""
    error = load("h100").log_sd
    yield from (Ratio(row, error) for row in truth.h100_scaling())


def cpu() -> Iterator[Ratio]:
    """Time over that of the float network in ONNX Runtime, one thread."""
    _, pairs = cpu_pairs.kept()
    rows: dict[str, list[tuple[Pair, Row]]] = {pair.network: [] for pair in pairs}
    apart = [math.log(first / second) for first, second in (pair.ratios for pair in pairs)]
    noise = 1.645 * float(np.sqrt(np.square(apart).mean())) / 2
    for pair in pairs:
        rows[pair.network].append((pair, _pair(pair, noise)))
    for network, own in rows.items():
        others = [row for name, theirs in rows.items() if name != network for _, row in theirs]
        error = log_sd(others)
        for pair, row in own:
            yield Ratio(row, error, min(abs(math.log(ratio)) for ratio in pair.ratios) > noise)


def _pair(pair: Pair, noise: float) -> Row:
    ours, theirs = _estimated(pair, pair.variant), _estimated(pair, cpu_pairs.ORIGINAL)
    ratio = ours.total.seconds / theirs.total.seconds
    name = f"{pair.network}, {pair.variant}"
    return Row(name, ratio, pair.ratio, "", "predicted", ours.total, theirs.total, noise)


def _estimated(pair: Pair, variant: str) -> Estimate:
    return _of(pair.network, variant, tuple((name, tuple(shape)) for name, shape in pair.shapes.items()))


@cache
def _of(network: str, variant: str, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Estimate:
    return estimate(cpu_pairs.graph(network, variant), "cpu", shapes=dict(shapes))


SECTIONS: dict[str, Callable[[], Iterator[Ratio]]] = {
    "Cortex-M4: time in int8": cortex_m4,
    "Pynq-Z2: energy in 1 bit": pynq,
    "Eyeriss: zeros coded, gated": eyeriss_zeros,
    "H100: energy a token, batch and devices": h100_scaling,
    "ONNX Runtime on one core: time": cpu,
}


def ranks(found: Sequence[Ratio]) -> str:
    """Say how far and in what order rows are that were measured on one machine."""
    estimated, published, errors = zip(
        *((each.row.estimated, each.row.published, abs(each.row.error)) for each in found), strict=True
    )
    order = spearmanr(estimated, published).statistic
    return f"  {len(found)} rows: median {statistics.median(errors):.1%} off, rank correlation {order:.2f}"


HEADER = "| ratio | rows | | median error | worst | sign right | inside |\n|---|---|---|---|---|---|---|"


def summary(title: str, found: Iterable[Ratio]) -> str:
    """Return a line of the README's table."""
    ratios = list(found)
    errors = [abs(each.row.error) for each in ratios]
    separated = [each for each in ratios if each.separated]
    held = [each.inside for each in ratios if each.inside is not None]
    origins = " and ".join(dict.fromkeys(each.row.origin for each in ratios))
    signs = f"{sum(each.sign_right for each in separated)} of {len(separated)}"
    inside = f"{sum(held)} of {len(held)}" if held else ""
    figures = f"{statistics.median(errors) * 100:.0f} % | {max(errors) * 100:.0f} %"
    return f"| {title} | {len(ratios)} | {origins} | {figures} | {signs} | {inside} |"


def main() -> None:
    """Print every row, and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="time the processor's pairs on this machine")
    if parser.parse_args().measure:
        runpy.run_path(str(Path(__file__).with_name("cpu_timing.py")), run_name="__main__")
    found = {title: list(section()) for title, section in SECTIONS.items()}
    for title, ratios in found.items():
        machine = f", measured on {cpu_pairs.kept()[0]}" if ratios[0].row.noise else ""
        print(f"\n{title}{machine}\n  {'':48} measured predicted  90 %             error  sign")
        print(*ratios, sep="\n")
        if ratios[0].row.noise:
            print(*map(ranks, (ratios, [each for each in ratios if each.separated])), sep="\n")
    print(f"\n{HEADER}")
    for title, ratios in found.items():
        print(summary(title, ratios))
    print(summary("all", (each for ratios in found.values() for each in ratios)))


if __name__ == "__main__":
    main()
