"""One model on several devices: data, tensor and pipeline parallel, with what the links cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from compress.errors import HardwareError
from compress.estimator.catalogue import as_profile
from compress.estimator.cost import Cost, cost
from compress.estimator.hardware import Link, Profile
from compress.estimator.scoring import Estimable, Workload, read_workload
from compress.estimator.uncertainty import DRAWS, Drawn
from compress.estimator.workload import LayerWork
from compress.graph import facts

Parallel: TypeAlias = Literal["data", "tensor", "pipeline"]


@dataclass(frozen=True)
class ParallelEstimate:
    """One inference on several devices."""

    devices: int
    total: Cost
    """Energy of all devices, links (component ``link``) and waiting included; seconds until the result."""
    link_bytes: float
    """Bytes over all links."""
    seconds_between: float
    """Time from one result to the next when the devices are kept busy."""
    bubble_seconds: float
    """Time that each device of a pipeline waits in a batch; 0 for other modes."""


def estimate_parallel(
    model: Estimable,
    hardware: str | Profile,
    devices: int,
    parallel: Parallel,
    *,
    shapes: Mapping[str, Sequence[int] | int] | None = None,
    zeros: Mapping[str, float] | None = None,
    microbatches: int = 1,
) -> ParallelEstimate:
    """Return the cost of one inference on several devices of the same kind.

    - ``data``: every device runs whole inferences of its own; nothing crosses a link.
    - ``tensor``: weights are divided among the p devices, by outputs and by inputs in turn, so that two
      products need one all-reduce of 2 (p - 1) / p times the result's bytes on every device.
    - ``pipeline``: devices run consecutive layers, and activations cross in the bits they are stored in.
      Of ``microbatches`` + p - 1 turns, a device waits p - 1, and draws leakage and clock power.

    Args:
        model: as for `estimate`.
        hardware: as for `estimate`; it must state a link, unless nothing crosses.
        devices: number of devices.
        parallel: how the work is divided.
        shapes: as for `estimate`.
        zeros: as for `estimate`.
        microbatches: inferences in flight in a pipeline.

    Raises:
        HardwareError: the profile states no link, or `devices` or `microbatches` is below 1.
    """
    profile = as_profile(hardware)
    if devices < 1 or microbatches < 1:
        raise HardwareError("devices and microbatches must be at least 1")
    work = read_workload(model, profile, shapes=shapes, zeros=zeros)
    if devices == 1 or parallel == "data":
        whole = sum((cost(layer, profile, work.homes)[0] for layer in work.layers), Cost())
        return ParallelEstimate(devices, whole, 0.0, whole.seconds / devices, 0.0)
    if profile.link is None:
        raise HardwareError(f"{profile.id} states no link between devices")
    if parallel == "tensor":
        return _tensor(work, profile, profile.link, devices)
    return _pipeline(work, profile, profile.link, devices, microbatches)


def _tensor(work: Workload, profile: Profile, link: Link, devices: int) -> ParallelEstimate:
    layers, reduced, gathered = shard(work.layers, devices)
    ring = (devices - 1) / devices * (2 * reduced + gathered)
    one = sum((cost(layer, profile, work.homes)[0] for layer in layers), Cost())
    wait = ring / link.bytes_per_second.value
    total = sum([one] * devices, Cost()) + _link_cost(link, ring * devices, wait)
    total = replace(total, seconds=one.seconds + wait)
    return ParallelEstimate(devices, total, ring * devices, total.seconds, 0.0)


def shard(layers: Iterable[LayerWork], devices: int) -> tuple[list[LayerWork], float, float]:
    """Return one device's layers, and the bytes of results that are all-reduced and all-gathered.

    A product is divided by its outputs if every device has its whole input. If the input is divided, so is
    the product, and its partial results are reduced. Products of activations are divided by their groups
    (attention heads). Normalizations need their whole input.
    """
    cut: set[str] = set()
    done: list[LayerWork] = []
    reduced = gathered = 0.0
    for layer in layers:
        read_cut = any(o.name in cut for o in layer.operands if o.name != layer.produces and not o.is_weight)
        if layer.weight.is_weight and layer.loops is not None:
            if read_cut:
                done.append(_cut(layer, devices, "c", ("input", "weight")))
                reduced += layer.output.bytes
            else:
                done.append(_cut(layer, devices, "m", ("weight", "output")))
                cut.add(layer.produces)
        elif read_cut and facts.named(layer.op_type).cost != "normalization":
            done.append(_cut(layer, devices, "m"))
            cut.add(layer.produces)
        else:
            gathered += math.fsum(o.bytes for o in layer.operands if o.name in cut)
            done.append(layer)
    return done, reduced, gathered


def _cut(
    layer: LayerWork, devices: int, side: str, operands: Iterable[str] = ("input", "weight", "output")
) -> LayerWork:
    """Return one device's part of a layer: of one side of its loops, or its groups, and of `operands`."""
    loops = layer.loops
    if loops is not None:
        side = "groups" if loops.groups > 1 else side
        loops = replace(loops, **{side: -(-getattr(loops, side) // devices)})
    return replace(
        layer,
        loops=loops,
        streamed=tuple(o.part(devices) for o in layer.streamed),
        ops=layer.ops / devices,
        **{name: getattr(layer, name).part(devices) for name in operands},
    )


def _pipeline(
    work: Workload, profile: Profile, link: Link, devices: int, microbatches: int
) -> ParallelEstimate:
    costs = [cost(layer, profile, work.homes)[0] for layer in work.layers]
    bounds = stages([one.seconds for one in costs], devices)
    times = [sum(one.seconds for one in costs[a:b]) for a, b in bounds]
    crossing = math.fsum(_crossing(work.layers, start) for start, _ in bounds[1:])
    wait = crossing / link.bytes_per_second.value
    slowest = max(times)
    bubble = (len(bounds) - 1) * slowest
    # Every device is on for all turns; beyond its own work it draws static power.
    idle = len(bounds) * (microbatches + len(bounds) - 1) * slowest / microbatches - sum(times)
    watts = [quantity for quantity in (profile.clock_watts, profile.leakage_watts) if quantity is not None]
    joules = idle * sum((quantity.draws for quantity in watts), np.zeros(1 + DRAWS))
    static = Cost({"static": float(joules[0])}, drawn=Drawn(joules[1:]))
    total = sum(costs, Cost()) + static + _link_cost(link, crossing, wait)
    between = slowest * (microbatches + len(bounds) - 1) / microbatches
    return ParallelEstimate(len(bounds), total, crossing, between, bubble)


def stages(seconds: Sequence[float], devices: int) -> list[tuple[int, int]]:
    """Return consecutive ranges of layers, at most one a device, whose slowest is as fast as possible.

    Bisection on the time of the slowest stage; a greedy walk decides whether that time can be met.
    """
    low, high = max(seconds, default=0.0), sum(seconds)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if len(_greedy(seconds, middle)) <= devices else (middle, high)
    return _greedy(seconds, high)


def _greedy(seconds: Sequence[float], limit: float) -> list[tuple[int, int]]:
    found, start, spent = [], 0, 0.0
    for index, one in enumerate(seconds):
        if spent + one > limit * (1 + 1e-12) and index > start:
            found.append((start, index))
            start, spent = index, 0.0
        spent += one
    return [*found, (start, len(seconds))]


def _crossing(layers: Sequence[LayerWork], start: int) -> float:
    """Return the bytes of activations that layers before `start` make and later ones read."""
    made = {o.name: o.bytes for layer in layers[:start] for o in layer.operands if o.name == layer.produces}
    needed = {o.name for layer in layers[start:] for o in layer.operands}
    return math.fsum(size for name, size in made.items() if name in needed)


def _link_cost(link: Link, moved: float, seconds: float) -> Cost:
    joules = moved * 8e-12 * link.pj_per_bit.draws
    return Cost({"link": float(joules[0])}, {"link": moved}, seconds=seconds, drawn=Drawn(joules[1:]))
