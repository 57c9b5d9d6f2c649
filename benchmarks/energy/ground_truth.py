"""The energy score beside published measurements: ``python benchmarks/energy/ground_truth.py``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import alexnet
import cachegrind
import mlperf_tiny
import timeloop
import transformer
import vgg16

from compress.estimator import Estimate, estimate, load
from compress.estimator.fitting import Measurement, fit


@dataclass(frozen=True)
class Row:
    """One check."""

    check: str
    estimated: float
    published: float
    unit: str

    @property
    def error(self) -> float:
        return self.estimated / self.published - 1


def eyeriss_traffic() -> Iterator[Row]:
    found = estimate(alexnet.model(), "eyeriss-v1", shapes=alexnet.SHAPES, zeros=alexnet.zeros())
    for layer in found.layers:
        yield Row(layer.name, layer.cost.dram_bytes / 1e6, alexnet.MEASURED_DRAM_MB[layer.name], "MB")
    yield Row("total", found.total.dram_bytes / 1e6, sum(alexnet.MEASURED_DRAM_MB.values()), "MB")


def _eyeriss_energy(seconds: dict[str, float] | None) -> Iterator[Row]:
    found = estimate(
        alexnet.model(), "eyeriss-v1", shapes=alexnet.SHAPES, zeros=alexnet.zeros(), seconds=seconds
    )
    for layer in found.layers:
        measured = alexnet.measured_joules(layer.name)
        yield Row(layer.name, layer.cost.energy_joules * 1e3, measured * 1e3, "mJ")
    total = sum(map(alexnet.measured_joules, alexnet.LAYERS))
    yield Row("total", found.total.energy_joules * 1e3, total * 1e3, "mJ")


def eyeriss_energy() -> Iterator[Row]:
    return _eyeriss_energy(None)


def eyeriss_energy_at_measured_seconds() -> Iterator[Row]:
    return _eyeriss_energy({name: ms * 1e-3 for name, ms in alexnet.MEASURED_MILLISECONDS.items()})


def _eyeriss_vgg16() -> Estimate:
    return estimate(
        vgg16.model(),
        "eyeriss-v1",
        shapes=vgg16.SHAPES,
        zeros=vgg16.zeros(),
        seconds=vgg16.MEASURED_SECONDS,
    )


def eyeriss_unseen_traffic() -> Iterator[Row]:
    found = _eyeriss_vgg16()
    for layer in found.layers:
        yield Row(layer.name, layer.cost.dram_bytes / 1e6, vgg16.MEASURED_DRAM_MB[layer.name], "MB")
    yield Row("total", found.total.dram_bytes / 1e6, sum(vgg16.MEASURED_DRAM_MB.values()), "MB")


def eyeriss_unseen_energy() -> Iterator[Row]:
    found = _eyeriss_vgg16()
    for layer in found.layers:
        yield Row(layer.name, layer.cost.energy_joules * 1e3, vgg16.MEASURED_JOULES[layer.name] * 1e3, "mJ")
    yield Row("total", found.total.energy_joules * 1e3, sum(vgg16.MEASURED_JOULES.values()) * 1e3, "mJ")


def eyeriss_voltages() -> Iterator[Row]:
    for point, published in (("1.0 V", 83.1), ("0.82 V", 122.8)):
        total = estimate(
            alexnet.model(), load("eyeriss-v1").at(point), shapes=alexnet.SHAPES, zeros=alexnet.zeros()
        ).total
        yield Row(point, total.macs / total.energy_joules / 1e9, published, "GMACS/W")


def voltage_law(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float]:
    """Return a (J/V^2) and L (W/V) of ``E = a V^2 + L V t`` through two measurements of one network.

    Args:
        first: volts, seconds and joules of one inference at one operating point.
        second: the same at another one.

    Raises:
        ValueError: the two do not tell a and L apart.
    """
    (v1, t1, e1), (v2, t2, e2) = first, second
    determinant = v1**2 * v2 * t2 - v2**2 * v1 * t1
    if not determinant:
        raise ValueError("both measurements are at the same voltage and time")
    switching = (e1 * v2 * t2 - e2 * v1 * t1) / determinant
    leaking = (v1**2 * e2 - v2**2 * e1) / determinant
    return switching, leaking


def _law(low: str, high: str, volts: tuple[float, float], fitted_on: str) -> Iterator[Row]:
    """Fit L on one network's two points; predict the others' second point from their first."""
    measured = mlperf_tiny.MEASURED | mlperf_tiny.RECALLED
    first, second = (
        {name: (v, 1 / rate, uj) for name, (uj, rate) in measured[key].items()}
        for v, key in zip(volts, (low, high), strict=True)
    )
    _, leaking = voltage_law(first[fitted_on], second[fitted_on])
    for name in first:
        v, t, uj = first[name]
        a = (uj - leaking * v * t) / v**2
        v, t, uj = second[name]
        if name != fitted_on:
            yield Row(name, a * v**2 + leaking * v * t, uj, "uJ")


def gap9_voltages() -> Iterator[Row]:
    return _law("gap9 0.65 V", "gap9 0.8 V", (0.65, 0.8), "ic")


def ndp9120_voltages() -> Iterator[Row]:
    return _law("ndp9120 0.9 V", "ndp9120 1.1 V", (0.9, 1.1), "kws")


def boards() -> Iterator[Row]:
    for key, networks in (mlperf_tiny.MEASURED | mlperf_tiny.RECALLED).items():
        hardware, _, point = key.partition(" ")
        profile = load(hardware).at(point) if point else load(hardware)
        for name, (microjoules, _) in networks.items():
            total = estimate(mlperf_tiny.NETWORKS[name](), profile).total
            yield Row(f"{key} {name}", total.energy_joules * 1e6, microjoules, "uJ")


def refitted_boards() -> Iterator[Row]:
    """What `fit` makes of each board's four measurements, from a profile of the same kind."""
    own = {key: (key, mlperf_tiny.MEASURED[key]) for key in ("stm32u575", "stm32l4r5")}
    for key, (hardware, measured) in (own | mlperf_tiny.OTHERS).items():
        data = measured.items()
        taken = [Measurement(mlperf_tiny.NETWORKS[n](), uj * 1e-6, 1 / rate) for n, (uj, rate) in data]
        for (name, (uj, _)), error in zip(data, fit(load(hardware), taken).energy_errors, strict=True):
            yield Row(f"{key} {name}", uj * (1 + error), uj, "uJ")


def _from_one(key: str, fitted_on: str, *points: str) -> Iterator[Row]:
    """Fit the profile to one network at one point; predict the others, and all at the other point."""
    hardware, _, first = key.partition(" ")
    every = mlperf_tiny.MEASURED | mlperf_tiny.RECALLED
    microjoules, rate = every[key][fitted_on]
    one = Measurement(mlperf_tiny.NETWORKS[fitted_on](), microjoules * 1e-6, 1 / rate)
    profile = fit(load(hardware), [one]).profile
    for point in (first, *points):
        for name, (measured, _) in every[f"{hardware} {point}"].items():
            total = estimate(mlperf_tiny.NETWORKS[name](), profile.at(point)).total
            yield Row(f"{point} {name}", total.energy_joules * 1e6, measured, "uJ")


def gap9_from_one_network() -> Iterator[Row]:
    return _from_one("gap9 0.65 V", "ic", "0.8 V")


def ndp9120_from_one_network() -> Iterator[Row]:
    return _from_one("ndp9120 0.9 V", "vww", "1.1 V")


def timeloop_designs() -> Iterator[Row]:
    for design in timeloop.DESIGNS:
        yield Row(design.name, design.words(), design.published, "words")


def h200_bert() -> Iterator[Row]:
    """The profile was fitted to these runs: what is checked is that a whole graph still tells the ratio."""
    joules = {kind: estimate(transformer.bert_layer(kind), "h200").total for kind in ("int8", "float16")}
    ratio = joules["int8"].energy_joules / joules["float16"].energy_joules
    yield Row("int8 over fp16", ratio, 102.3 / 121.0, "")


def cpu_fills() -> Iterator[Row]:
    for name, counted in cachegrind.RECORDED.items():
        yield Row(name, cachegrind.estimated(name) / 1e6, counted / 1e6, "MB")


CHECKS: dict[str, Callable[[], Iterator[Row]]] = {
    "Eyeriss, AlexNet, DRAM": eyeriss_traffic,
    "Eyeriss, AlexNet, energy": eyeriss_energy,
    "Eyeriss, AlexNet, energy at measured seconds": eyeriss_energy_at_measured_seconds,
    "Eyeriss, VGG-16 (table recalled), DRAM": eyeriss_unseen_traffic,
    "Eyeriss, VGG-16 (table recalled), energy at measured seconds": eyeriss_unseen_energy,
    "Eyeriss, efficiency by voltage": eyeriss_voltages,
    "GAP9, 0.8 V from 0.65 V, L fitted on image classification": gap9_voltages,
    "NDP9120, 1.1 V (recalled) from 0.9 V, L fitted on keyword spotting": ndp9120_voltages,
    "GAP9, fitted to image classification at 0.65 V alone": gap9_from_one_network,
    "NDP9120, fitted to visual wake words at 0.9 V alone": ndp9120_from_one_network,
    "MLPerf Tiny, profiles as shipped": boards,
    "MLPerf Tiny, fitted anew": refitted_boards,
    "Timeloop, published designs, DRAM": timeloop_designs,
    "H200, BERT": h200_bert,
    "CPU, memory fills, against cachegrind's": cpu_fills,
}


def main() -> None:
    for title, check in CHECKS.items():
        start = time.perf_counter()
        rows = list(check())
        seconds = time.perf_counter() - start
        errors = [row.error for row in rows]
        mean = statistics.fmean(map(abs, errors))
        print(f"\n{title}: mean error {mean:.1%}, {min(errors):+.1%} to {max(errors):+.1%} ({seconds:.2f} s)")
        for row in rows:
            print(
                f"  {row.check:24} {row.estimated:12.5g} {row.published:12.5g} {row.unit:8} {row.error:+7.1%}"
            )


if __name__ == "__main__":
    main()
