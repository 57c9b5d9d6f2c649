"""The energy score beside published measurements: ``python benchmarks/energy/ground_truth.py``.

Every row says how it came about. Numbers of the profile were fitted to a *fitted* row, among others: it shows
how well the model can describe what it saw. For a *left out* row the fit was made anew without it. A
*predicted* row was never used. No check is one that cannot fail.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import alexnet
import boards
import cachegrind
import eyeriss
import h100
import jetson
import measured
import mlperf_tiny
import resnet50
import timeloop
import tpu_v1
import vgg16
from measured import Inference
from rows import Origin, Row, inside, log_sd, share

from compress.estimator import Estimate, Profile, estimate, load


def _alexnet() -> Estimate:
    return estimate(alexnet.model(), "eyeriss-v1", shapes=alexnet.SHAPES, zeros=alexnet.zeros())


def _vgg16() -> Estimate:
    return estimate(vgg16.model(), "eyeriss-v1", shapes=vgg16.SHAPES, zeros=vgg16.zeros())


def _summed(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows, and their total."""
    known = list(rows)
    yield from known
    total = sum(row.estimated for row in known), sum(row.published for row in known)
    yield Row("total", *total, known[0].unit, known[0].origin)


def _dram(found: Estimate, published: dict[str, float]) -> Iterator[Row]:
    rows = (Row(x.name, x.cost.dram_bytes / 1e6, published[x.name], "MB") for x in found.layers)
    return _summed(rows)


def eyeriss_alexnet_traffic() -> Iterator[Row]:
    return _dram(_alexnet(), alexnet.MEASURED_DRAM_MB)


def eyeriss_vgg16_traffic() -> Iterator[Row]:
    return _dram(_vgg16(), vgg16.MEASURED_DRAM_MB)


def eyeriss_alexnet_energy() -> Iterator[Row]:
    for layer in _alexnet().layers:
        measured_mj = alexnet.measured_joules(layer.name) * 1e3
        yield Row(layer.name, layer.cost.energy_joules * 1e3, measured_mj, "mJ", "fitted")


def eyeriss_alexnet_layer_left_out() -> Iterator[Row]:
    def rows() -> Iterator[Row]:
        for name in alexnet.LAYERS:
            profile = eyeriss.fit([other for other in alexnet.LAYERS if other != name])
            found = estimate(alexnet.model(), profile, shapes=alexnet.SHAPES, zeros=alexnet.zeros())
            (cost,) = (layer.cost for layer in found.layers if layer.name == name)
            joules = cost.energy_joules, alexnet.measured_joules(name)
            yield Row(name, joules[0] * 1e3, joules[1] * 1e3, "mJ", "left out", cost)

    return _summed(rows())


def eyeriss_vgg16_energy() -> Iterator[Row]:
    rows = (
        Row(x.name, x.cost.energy_joules * 1e3, vgg16.MEASURED_JOULES[x.name] * 1e3, "mJ", cost=x.cost)
        for x in _vgg16().layers
    )
    return _summed(rows)


def eyeriss_voltages() -> Iterator[Row]:
    for point, published in (("1.0 V", 83.1), ("0.82 V", 122.8)):
        profile = load("eyeriss-v1").at(point)
        total = estimate(alexnet.model(), profile, shapes=alexnet.SHAPES, zeros=alexnet.zeros()).total
        origin: Origin = "fitted" if point == "1.0 V" else "predicted"
        yield Row(point, total.macs / total.energy_joules / 1e9, published, "GMACS/W", origin)


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


def _law(low: str, high: str, volts: tuple[float, float]) -> Iterator[Row]:
    """Find L on one network's two points in turn; predict the others' second point from their first."""
    known = mlperf_tiny.MEASURED | mlperf_tiny.RECALLED
    first, second = (
        {name: (v, 1 / rate, uj) for name, (uj, rate) in known[key].items()}
        for v, key in zip(volts, (low, high), strict=True)
    )
    for told in first:
        _, leaking = voltage_law(first[told], second[told])
        for name in first:
            if name != told:
                v, t, uj = first[name]
                a = (uj - leaking * v * t) / v**2
                v, t, uj = second[name]
                yield Row(f"{name}, L of {told}", a * v**2 + leaking * v * t, uj, "uJ")


def gap9_voltages() -> Iterator[Row]:
    return _law("gap9 0.65 V", "gap9 0.8 V", (0.65, 0.8))


def ndp9120_voltages() -> Iterator[Row]:
    return _law("ndp9120 0.9 V", "ndp9120 1.1 V", (0.9, 1.1))


def chips() -> Iterator[Row]:
    """GAP9 and NDP9120 as shipped: fitted at their first operating point, predicted at the second."""
    for key, networks in (mlperf_tiny.MEASURED | mlperf_tiny.RECALLED).items():
        hardware, _, point = key.partition(" ")
        profile = load(hardware)
        first = point == profile.operating_points[0].name
        for name, (microjoules, _) in networks.items():
            total = estimate(mlperf_tiny.NETWORKS[name](), profile.at(point)).total
            origin: Origin = "fitted" if first else "predicted"
            yield Row(f"{key} {name}", total.energy_joules * 1e6, microjoules, "uJ", origin, total)


def chips_network_left_out() -> Iterator[Row]:
    """The same chips, fitted to their other networks.

    The fit replaces all scales. What it keeps of GAP9 are proportions of its architecture; of NDP9120, where
    none is known, it keeps the memories alone.
    """
    yield from _network_left_out(measured.inferences("greenwaves-technologies"), load("gap9"))
    yield from _network_left_out(measured.inferences("syntiant"), alike(load("ndp9120")))


def alike(profile: Profile) -> Profile:
    """Return a profile with the same rate, and the same energy, for all that it does."""
    rates = ("macs_per_second", "ops_per_second", "bytes_per_second")
    energies = ("pj_per_mac", "pj_per_op", "pj_per_bit")
    values = dict.fromkeys(rates, 1e9) | dict.fromkeys(energies, 1.0)
    return profile.model_validate(_set(profile.model_dump(), values))


def _set(part: object, values: dict[str, float]) -> object:
    """Return a dumped profile with other values of some fields."""
    if isinstance(part, list | tuple):
        return [_set(each, values) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        name: {**each, "value": values[name]} if name in values and each else _set(each, values)
        for name, each in part.items()
    }


def boards_rates() -> Iterator[Row]:
    for row in boards.of_st():
        seconds = boards.modelled(row.network, boards.ST[row.board]).seconds
        yield Row(_name(row), seconds * 1e3, row.seconds * 1e3, "ms", "fitted")


def boards_network_left_out() -> Iterator[Row]:
    for board, rows in groupby(boards.of_st(), key=lambda row: row.board):
        yield from _network_left_out(rows, load(boards.ST[board]))


def boards_board_left_out() -> Iterator[Row]:
    for row, joules in boards.board_left_out():
        yield Row(_name(row), joules * 1e6, (row.joules or 0.0) * 1e6, "uJ", "left out")


def other_boards_network_left_out() -> Iterator[Row]:
    for source, start in boards.OTHERS.items():
        yield from _network_left_out(measured.inferences(source), load(start))


def _network_left_out(rows: Iterator[Inference] | tuple[Inference, ...], start: Profile) -> Iterator[Row]:
    for _, own in groupby(rows, key=lambda row: (row.source, row.board)):
        for row, found in boards.network_left_out(own, start):
            yield Row(
                _name(row), found.energy_joules * 1e6, (row.joules or 0.0) * 1e6, "uJ", "left out", found
            )


def _name(row: Inference) -> str:
    return f"{row.source.split()[2].rstrip(',')} {row.board} {row.network}"


def float_ratios() -> Iterator[Row]:
    for network, ratio in boards.float_ratios().items():
        yield Row(network, boards.float_ratio_left_out(network), ratio, "", "left out")


def h100_tokens() -> Iterator[Row]:
    profile = load("h100")
    for row in measured.tokens():
        joules = h100.cost(profile, row).energy_joules / row.batch
        yield Row(_token(row), joules, row.joules, "J", "fitted")


def h100_model_left_out() -> Iterator[Row]:
    without = h100.left_out()
    for row in measured.tokens():
        joules = without[row.model].joules(h100.parts(row))
        yield Row(_token(row), joules, row.joules, "J", "left out", h100.shipped(row))


def h100_scaling() -> Iterator[Row]:
    """Energy over that at the least batch, and over that on fewer GPUs, a model left out."""
    rows, without = measured.tokens(), h100.left_out()
    for row in rows:
        of_model = [other for other in rows if other.model == row.model]
        least = min((other for other in of_model if other.gpus == row.gpus), key=lambda other: other.batch)
        alike = (other for other in of_model if round(other.batch) == round(row.batch))
        fewer = min(alike, key=lambda other: other.gpus)
        for other, over in ((least, f"a batch of {least.batch:.0f}"), (fewer, f"{fewer.gpus} GPU")):
            if other is not row:
                ours, theirs = (without[row.model].joules(h100.parts(each)) for each in (row, other))
                name, pair = f"{_token(row)} over {over}", (h100.shipped(row), h100.shipped(other))
                yield Row(name, ours / theirs, row.joules / other.joules, "", "left out", *pair)


def _token(row: measured.Token) -> str:
    return f"{row.model} x{row.batch:.0f} on {row.gpus}"


def h200_resnet50() -> Iterator[Row]:
    """The profile was fitted to BERT; eight GPUs took 4954 W for 556,234 images a second."""
    total = estimate(resnet50.model(), "h200").total
    yield Row("ResNet-50", total.energy_joules / resnet50.BATCH * 1e3, 8.91, "mJ", cost=total)


def jetson_rates() -> Iterator[Row]:
    for (model, mode), published in jetson.PUBLISHED.items():
        yield Row(f"{model}, {mode}", jetson.tokens_a_second(model, mode), published, "1/s")


def tpu_v1_rates() -> Iterator[Row]:
    for name, (*_, published) in tpu_v1.WORKLOADS.items():
        total = estimate(tpu_v1.model(name), "tpu-v1").total
        yield Row(name, 2 * total.macs / total.seconds * 1e-12, published, "TOPS")


def timeloop_designs() -> Iterator[Row]:
    for design in timeloop.DESIGNS:
        yield Row(design.name, design.words(), design.published, "words")


def cpu_fills() -> Iterator[Row]:
    for name, counted in cachegrind.RECORDED.items():
        yield Row(name, cachegrind.estimated(name) / 1e6, counted / 1e6, "MB")


CHECKS: dict[str, Callable[[], Iterator[Row]]] = {
    "Eyeriss, AlexNet, DRAM": eyeriss_alexnet_traffic,
    "Eyeriss, VGG-16, DRAM": eyeriss_vgg16_traffic,
    "Eyeriss, AlexNet, energy": eyeriss_alexnet_energy,
    "Eyeriss, AlexNet, energy, a layer left out": eyeriss_alexnet_layer_left_out,
    "Eyeriss, VGG-16, energy, from AlexNet": eyeriss_vgg16_energy,
    "Eyeriss, AlexNet, efficiency by voltage": eyeriss_voltages,
    "GAP9, 0.8 V from 0.65 V, leakage from one network": gap9_voltages,
    "NDP9120, 1.1 V (recalled) from 0.9 V, leakage from one network": ndp9120_voltages,
    "GAP9 and NDP9120, energy": chips,
    "GAP9 and NDP9120, energy, a network left out": chips_network_left_out,
    "ST's boards, time": boards_rates,
    "ST's boards, energy, a network left out": boards_network_left_out,
    "ST's boards, energy, a board left out": boards_board_left_out,
    "Other boards and firmware, energy, a network left out": other_boards_network_left_out,
    "Cortex-M4, time of int8 over float32, a network left out": float_ratios,
    "H100, energy a generated token": h100_tokens,
    "H100, energy a generated token, a model left out": h100_model_left_out,
    "H100, ratios of it by batch and GPUs, a model left out": h100_scaling,
    "H200, ResNet-50 in int8, energy": h200_resnet50,
    "Jetson Orin Nano, generated tokens a second": jetson_rates,
    "TPU v1, rate": tpu_v1_rates,
    "Timeloop, published designs, DRAM": timeloop_designs,
    "CPU, memory fills, against cachegrind's": cpu_fills,
}


CLASSES: dict[str, tuple[str, ...]] = {
    "microcontroller": (
        "ST's boards, energy, a network left out",
        "Other boards and firmware, energy, a network left out",
    ),
    "array": ("Eyeriss, AlexNet, energy, a layer left out", "Eyeriss, VGG-16, energy, from AlexNet"),
    "small NPU": ("GAP9 and NDP9120, energy", "GAP9 and NDP9120, energy, a network left out"),
    "GPU": (
        "H100, energy a generated token, a model left out",
        "H100, ratios of it by batch and GPUs, a model left out",
        "H200, ResNet-50 in int8, energy",
    ),
}
"""The checks that tell how much the model errs, by class of hardware."""


SHIPPED = {
    "microcontroller": ("stm32l4r5", "stm32u575", "stm32u385", "stm32h7"),
    "array": ("eyeriss-v1",),
    "small NPU": ("gap9", "ndp9120"),
    "GPU": ("h100", "h200"),
}
"""The profiles whose `model_error` is the log-sd of their class."""


def unseen(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with an interval that no number was fitted to, without totals."""
    return [row for row in rows if row.cost is not None and row.origin != "fitted" and row.check != "total"]


def main() -> None:
    found: dict[str, list[Row]] = {}
    for title, check in CHECKS.items():
        start = time.perf_counter()
        rows = found[title] = list(check())
        seconds = time.perf_counter() - start
        errors = [row.error for row in rows if row.check != "total"]
        median = statistics.median(map(abs, errors))
        print(
            f"\n{title}: {len(errors)} rows, median error {median:.1%}, "
            f"{min(errors):+.1%} to {max(errors):+.1%} ({seconds:.1f} s)"
        )
        for row in rows:
            print(
                f"  {row.check:44} {row.estimated:12.5g} {row.published:12.5g} {row.unit:8} {row.error:+7.1%}"
                f"  {row.origin}"
            )
    print(
        "\nEnergies inside their 90 % interval, by what the other rows of the class say of the model's error:"
    )
    every: list[bool] = []
    for name, titles in CLASSES.items():
        rows = unseen(row for title in titles for row in found[title])
        held = inside(rows)
        every += held
        print(f"  {name:16} {share(held)}; log-sd {log_sd(rows):.3f}")
    print(f"  {'all':16} {share(every)}")


if __name__ == "__main__":
    main()
