"""Joules, bytes and seconds of one layer; costs add."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from compress import units
from compress.estimator.mapping import Crossings, Words, search, whole_maps
from compress.estimator.residency import Homes, part_outside
from compress.estimator.uncertainty import DRAWS, Drawn, interval, standard

TIMED = ("static", "package")
"""Components that are a power for as long as a layer takes."""

if TYPE_CHECKING:
    from compress.estimator.hardware import Arithmetic, Array, Format, Memory, Profile
    from compress.estimator.mapping import Loops
    from compress.estimator.workload import LayerWork, Operand


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a layer or of a network; ``cost + cost`` and ``sum(costs, Cost())`` add."""

    energy: Mapping[str, float] = field(default_factory=dict)
    """Joules by component: compute, each memory, static."""
    bytes_moved: Mapping[str, float] = field(default_factory=dict)
    """Bytes between each memory and the next one inward."""
    dram_bytes: float = 0.0
    """Bytes to and from memory outside the chip; 0 where the hardware has none."""
    macs: int = 0
    seconds: float = 0.0
    dram_weight_bytes: float = 0.0
    """The part of `dram_bytes` that is weights; the rest is activations."""
    drawn: Drawn = field(default_factory=Drawn, compare=False, repr=False)
    """The joules as a distribution."""

    def __str__(self) -> str:
        return units.cost(
            self.energy_joules, self.energy_low, self.energy_high, self.dram_bytes, self.seconds
        )

    def __repr__(self) -> str:
        return f"Cost({self})"

    @property
    def energy_joules(self) -> float:
        """Sum over the components, at the numbers that the profile states."""
        return sum(self.energy.values())

    @property
    def energy_draws(self) -> np.ndarray:
        """Joules in each draw of all that is uncertain."""
        return self.drawn.energies

    @property
    def energy_low(self) -> float:
        """Low end of the 90 % interval of the joules."""
        return interval(self.energy_draws)[0]

    @property
    def energy_high(self) -> float:
        """High end of the 90 % interval of the joules."""
        return interval(self.energy_draws)[1]

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            _add(self.energy, other.energy),
            _add(self.bytes_moved, other.bytes_moved),
            self.dram_bytes + other.dram_bytes,
            self.macs + other.macs,
            self.seconds + other.seconds,
            self.dram_weight_bytes + other.dram_weight_bytes,
            self.drawn + other.drawn,
        )


def _add(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {key: left.get(key, 0.0) + right.get(key, 0.0) for key in {**left, **right}}


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of a layer, known otherwise than from the profile's rates."""

    seconds: np.ndarray | float
    """One number, or as stated and then in each draw."""
    measured: bool = False
    """Whether the layer itself was timed, so that no error of the model is in its time."""


def cost(layer: LayerWork, profile: Profile, homes: Homes, clock: Clock | None = None) -> tuple[Cost, str]:
    """Return the cost of one layer and what limits it: compute, vector or the name of a memory.

    Args:
        layer: what is computed, on operands as they are stored.
        profile: the hardware.
        homes: where operands live.
        clock: how long the layer takes; the profile's rates tell if None.
    """
    crossing = {
        memory.name: _traffic(layer, profile, level, homes)
        for level, memory in enumerate(profile.memories[:-1])
    }
    moved = {name: weights + others for name, (weights, others) in crossing.items()}
    ops = layer.steps * (layer.ops + _unpacked(layer)) + _decoded(layer, profile, homes)
    paid: dict[str, np.ndarray | float] = {**moved, **_attended(layer, profile, moved)}
    times = _times(layer, profile, paid, ops)
    seconds = reduce(np.maximum, times.values()) if profile.overlap else sum(times.values(), np.zeros(1))
    if profile.start_seconds is not None:
        seconds = seconds + layer.steps * layer.parts * profile.start_seconds.draws
    if clock is not None:
        seconds = clock.seconds * np.ones(1 + DRAWS)
    bound = max(times, key=lambda name: float(times[name][0]))
    energy: dict[str, float] = {}
    modelled, timed = np.zeros(1 + DRAWS), np.zeros(1 + DRAWS)
    supply = profile.supply_efficiency
    powered = clock is not None and profile.package_watts is not None
    spent = _packaged if powered else _energies
    for component, part in spent(layer, profile, paid, ops, seconds):
        if supply is not None:
            part = part / np.minimum(supply.draws, 1.0)
        energy[component] = energy.get(component, 0.0) + float(part[0])
        if clock is not None and clock.measured and component in TIMED:
            timed = timed + part
        else:
            modelled = modelled + part
    outside = [memory.name for memory in profile.memories[:-1] if memory.off_chip]
    dram = math.fsum(moved[name] for name in outside)
    of_weights = math.fsum(crossing[name][0] for name in outside)
    drawn = _drawn(layer, profile, modelled, timed)
    return Cost(energy, moved, dram, layer.macs, float(seconds[0]), of_weights, drawn), bound


def _drawn(layer: LayerWork, profile: Profile, joules: np.ndarray, timed: np.ndarray) -> Drawn:
    """Return the joules of each draw; a layer that is the same in two variants is off by the same there."""
    operands = tuple((o.elements, o.bits, round(o.zeros or 0.0, 1)) for o in layer.operands)
    error = float(joules[0]) * standard(
        f"{layer.op_type} {layer.number} {layer.loops} {layer.steps} {operands}"
    )
    return Drawn(joules[1:], error, profile.log_sd, timed[1:])


def _attended(
    layer: LayerWork, profile: Profile, moved: Mapping[str, float]
) -> dict[str, np.ndarray | float]:
    """Return the bytes that an attention's traffic with the outermost memory counts as."""
    if profile.attention_efficiency is None or not layer.macs or layer.weight.is_weight:
        return {}
    name = profile.memories[0].name
    return {name: moved[name] / np.minimum(profile.attention_efficiency.draws, 1.0)}


def _traffic(layer: LayerWork, profile: Profile, level: int, homes: Homes) -> tuple[float, float]:
    """Return the bytes between a memory and the next one inward: those of weights, and all others."""
    streams = [(operand, layer.steps * _sent(operand, profile, level, homes)) for operand in layer.streamed]
    if layer.loops is not None and layer.macs:
        crossed = _crossings(layer, layer.loops, profile, level, homes)
        weights = crossed.weight * layer.steps * (layer.parts if layer.weight.is_weight else 1.0)
        if layer.steps > 1 and layer.weight.bytes <= _capacity(profile, level + 1):
            weights = 1.0
        repeats = (layer.steps * crossed.input, weights, layer.steps * crossed.output)
        operands = (layer.input, layer.weight, layer.output)
        streams += [
            (operand, times * _sent(operand, profile, level, homes))
            for operand, times in zip(operands, repeats, strict=True)
        ]
    of_weights = math.fsum(size for operand, size in streams if operand.is_weight)
    return of_weights, math.fsum(size for operand, size in streams if not operand.is_weight)


def _sent(operand: Operand, profile: Profile, level: int, homes: Homes) -> float:
    """Return the bytes of an operand as it leaves a memory inward; what lives further in is left out."""
    return stored_bytes(operand, profile.memories[level], level) * part_outside(homes, operand.name, level)


def _crossings(layer: LayerWork, loops: Loops, profile: Profile, level: int, homes: Homes) -> Crossings:
    """Return how often the operands cross from a memory into the next one."""
    room = _room(profile, level + 1)
    operands = list(zip((layer.input, layer.weight, layer.output), loops.elements, strict=True))
    loops = layer.at_once or loops
    held = Words(*(_held(operand, level + 1) / count for operand, count in operands))
    direct = profile.direct_convolution
    if direct is not None and layer.op_type in ("Conv", "FusedConv") and level < len(profile.memories) - 2:
        return whole_maps(loops, held, room, int(direct.outputs.value), int(direct.inputs.value))
    moved = Words(*(_sent(operand, profile, level, homes) / count for operand, count in operands))
    streams = profile.streams_weights and level == 0
    return search(
        loops, moved, held, room, profile.dataflows, streams, profile.moves_padding, profile.whole_rows
    )


def _held(operand: Operand, level: int) -> float:
    """Return the bytes that an operand takes in the memory of that level."""
    return operand.coded_bytes if operand.coded_bytes and level < operand.decoded_at else operand.bytes


def _unpacked(layer: LayerWork) -> int:
    """Return how many weights are turned from codes into the floats that are multiplied."""
    return layer.weight.elements if layer.weight.encoded and layer.number.kind == "float" else 0


def _decoded(layer: LayerWork, profile: Profile, homes: Homes) -> float:
    """Return how many weights are decoded: all, whenever they leave the innermost memory with coded bytes."""
    if not layer.weight.coded_bytes or layer.loops is None:
        return 0.0
    level = min(layer.weight.decoded_at, len(profile.memories) - 1) - 1
    times = layer.steps * layer.parts * _crossings(layer, layer.loops, profile, level, homes).weight
    return layer.weight.elements * times


def _room(profile: Profile, level: int) -> float:
    """Return the bytes that tiles may take: half a buffer if the next ones come in during arithmetic."""
    buffered = profile.overlap and profile.executes == "logical"  # a cache takes in lines, not tiles
    return _capacity(profile, level) / (2 if buffered else 1)


def _capacity(profile: Profile, level: int) -> float:
    capacity = profile.memories[level].capacity_bytes
    return capacity.value if capacity is not None else math.inf


def stored_bytes(operand: Operand, memory: Memory, level: int) -> float:
    """Return the bytes of an operand in the format that the memory of that level keeps it in."""
    if operand.coded_bytes and level < operand.decoded_at:
        return operand.coded_bytes
    chosen = memory.weight_format if operand.is_weight else memory.activation_format
    if chosen == "two-of-four" and not operand.two_of_four:
        return operand.bytes
    return operand.bytes * format_ratio(
        chosen, operand.zeros or 0.0, operand.bytes * 8 / max(operand.elements, 1)
    )


def format_ratio(chosen: Format, zeros: float, bits: float) -> float:
    """Return stored size over dense size at a fraction of zeros, never above 1.

    Run-length: three 16-bit values and three 5-bit runs in 64 bits, 4/3 of the values that are kept
    (Eyeriss, JSSC 2017, section V-B). Bitmap: one bit an element, and the values that are kept.
    Two of four: half the values and two bits for the place of each. Compressed columns: 4 bits of count with
    each value that is kept (Eyeriss v2, JETCAS 2019).
    """
    if chosen == "run-length":
        return min(1.0, (1 - zeros) * 64 / 48)
    if chosen == "bitmap":
        return min(1.0, (1 - zeros) + 1 / bits)
    if chosen == "two-of-four":
        return min(1.0, 0.5 + 1 / bits)
    if chosen == "compressed-columns":
        return min(1.0, (1 - zeros) * (1 + 4 / bits))
    return 1.0


def _times(
    layer: LayerWork, profile: Profile, moved: Mapping[str, np.ndarray | float], ops: float
) -> dict[str, np.ndarray]:
    """Return the seconds of arithmetic, vector operations and each memory: as stated, and in each draw."""
    times = {"compute": np.zeros(1 + DRAWS), "vector": ops / profile.vector.ops_per_second.draws}
    if layer.loops is not None and layer.macs:
        times["compute"] = _arithmetic_seconds(layer, layer.loops, profile)
    for memory in profile.memories[:-1]:
        if memory.bytes_per_second is not None:
            times[memory.name] = moved[memory.name] / memory.bytes_per_second.draws
    return times


def _arithmetic_seconds(layer: LayerWork, loops: Loops, profile: Profile) -> np.ndarray:
    rate = _units(layer, profile).macs_per_second.draws
    if profile.array is not None:
        rate = rate * utilization(profile.array, layer.at_once or loops)
    if (kernel := profile.kernel_efficiency.get(loops.kernel_kind)) is not None:
        rate = rate * np.minimum(kernel.draws, 1.0)
    seconds = np.maximum(
        _macs(layer, profile) * _busy(layer, profile) / rate, _summing_seconds(layer, loops, profile.array)
    )
    return seconds / np.minimum(profile.efficiency.draws, 1.0) if profile.efficiency is not None else seconds


def _summing_seconds(layer: LayerWork, loops: Loops, array: Array | None) -> np.ndarray | float:
    """Return the seconds in which partial sums leave an array and come back, once a pass over channels.

    On Eyeriss (JSSC 2017) a pass sums as many channels as have their rows of input in one bank of the
    buffer: one channel where maps are wide.
    """
    if array is None or array.bytes_per_second is None or array.input_bytes is None:
        return 0.0
    rows = (min(loops.out[0], array.columns.value) - 1) * loops.stride[0] + loops.window[0]
    channel = rows * (loops.input_size[1] + loops.padding[1]) * layer.input.bits / 8
    passes = math.ceil(loops.c / max(array.input_bytes.value // channel, 1.0))
    sums = loops.elements[2] * layer.steps * layer.output.bits / 8
    return (2 * passes - 1) * sums / array.bytes_per_second.draws


def _units(layer: LayerWork, profile: Profile) -> Arithmetic:
    """Return the units that a deployed layer is multiplied on."""
    return profile.arithmetic[profile.runs_in(layer.number) or ""]


def _macs(layer: LayerWork, profile: Profile) -> float:
    """Return the multiply-accumulates that the units do, zeros that they skip included."""
    halved = profile.halves_two_of_four and layer.weight.two_of_four
    return layer.macs * (0.5 if halved else 1.0)


def _busy(layer: LayerWork, profile: Profile) -> np.ndarray | float:
    """Return the share of the multiply-accumulates that take time."""
    return _activity(layer, profile) if profile.zeros == "skip" else 1.0


def _activity(layer: LayerWork, profile: Profile) -> np.ndarray | float:
    """Return how often a multiply-accumulate takes place: zeros make it less than 1, time steps more."""
    if profile.zeros == "ignore":
        return 1.0
    active = 1.0
    if "activations" in profile.zero_operands:
        active *= 1.0 - (layer.input.zeros or 0.0)
    if "weights" in profile.zero_operands:
        active *= 1.0 - (layer.weight.zeros or 0.0)
    if profile.events is None:
        return active
    fires = active if layer.input.zeros is not None else active * profile.events.activity.draws
    return fires * profile.events.time_steps.draws


def utilization(array: Array, loops: Loops) -> float:
    """Return the fraction of an array's units that a layer keeps busy."""
    rows, columns = int(array.rows.value), int(array.columns.value)
    if array.mapping == "weight-stationary":
        return _filling(loops.c * math.prod(loops.kernel), rows) * _filling(loops.m, columns)
    # Output rows are cut into strips no wider than the array. Several strips fit side by side, and
    # several sets of kernel rows one above the other.
    height = min(loops.kernel[0], rows)
    strip = loops.out[0] / -(-loops.out[0] // columns)
    stacked, abreast = rows // height, columns // math.ceil(strip)
    return height * strip * stacked * abreast / (rows * columns)


def _filling(extent: int, size: int) -> float:
    return extent / (-(-extent // size) * size)


def _energies(
    layer: LayerWork,
    profile: Profile,
    moved: Mapping[str, np.ndarray | float],
    ops: float,
    seconds: np.ndarray,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield components with their joules: as stated, and in each draw."""
    if layer.macs:
        units, macs = _units(layer, profile), _macs(layer, profile)
        active = _activity(layer, profile)
        yield "compute", macs * active * 1e-12 * units.pj_per_mac.draws
        if profile.zeros == "gate" and units.pj_per_gated_mac is not None:
            yield "compute", macs * (1 - active) * 1e-12 * units.pj_per_gated_mac.draws
    yield "compute", ops * 1e-12 * profile.vector.pj_per_op.draws
    filled: np.ndarray | float = 0.0
    for memory in profile.memories[:-1]:
        if memory.pj_per_bit is not None:
            # Bytes that cross into a level from outside are written to it (or read from it), too.
            yield memory.name, (moved[memory.name] + filled) * 8e-12 * memory.pj_per_bit.draws
        filled = moved[memory.name]
    for watts in (profile.clock_watts, profile.leakage_watts):
        if watts is not None:
            yield "static", watts.draws * seconds


def _packaged(
    layer: LayerWork,
    profile: Profile,
    moved: Mapping[str, np.ndarray | float],
    ops: float,
    seconds: np.ndarray,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what a processor's package takes in that time, and the memories outside it."""
    if profile.package_watts is not None:
        yield "package", profile.package_watts.draws * seconds
    for component, part in _energies(layer, profile, moved, ops, seconds):
        if any(memory.off_chip and memory.name == component for memory in profile.memories):
            yield component, part
