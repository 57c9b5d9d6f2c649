"""Estimates as tables and sentences for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from compress.report import summary, tables
from compress.units import si, spread

if TYPE_CHECKING:
    from rich.table import Table

    from compress.estimator import Cost, Estimate, Generation, ParallelEstimate, PointEstimate, Profile
    from compress.estimator.measuring import Measured


def of_inference(
    estimates: Sequence[Estimate], refused: Iterable[str], measured: Measured | None, layers: bool
) -> Iterator[str | Table]:
    """Yield the table of estimates, what was measured here, and every layer if asked for.

    `refused` names the hardware that the model does not run on.
    """
    table = tables.new("hardware", "energy", "90 % interval", "DRAM traffic", "MACs", "time")
    for one in estimates:
        total = one.total
        cells = si(total.dram_bytes, "B"), si(total.macs, ""), si(total.seconds, "s")
        table.add_row(one.hardware, si(total.energy_joules, "J"), _range(total), *cells)
    for name in refused:
        table.add_row(name, "does not run", "", "", "", "")
    if measured is not None:
        table.add_row(*_measured(measured))
    yield table
    if measured is not None:
        what = "energy " if measured.joules is None else "energy, less the machine's at rest, by "
        yield f"\nmeasured on one core of this machine, {measured.runs} runs; {what}{measured.meter}"
    for one in estimates if layers else ():
        yield f"\n{one.hardware}"
        yield _layers(one)


def remarks(one: Estimate) -> Iterator[str]:
    """Yield a sentence for all that an estimate leaves out or takes for granted."""
    for words, share in summary.remarks(one):
        yield f"{one.hardware}: {words}" + ("" if share is None else f" ({share:.1%} of all bytes)")


def of_generation(found: Mapping[str, Generation]) -> Table:
    """Return the table of the costs of the prompt, of one token and of all, by hardware."""
    table = tables.new("hardware", "", "energy", "90 % interval", "DRAM traffic", "time")
    for name, one in found.items():
        for part, cost in (("prompt", one.prefill), ("each token", one.token), ("all", one.total)):
            cells = si(cost.dram_bytes, "B"), si(cost.seconds, "s")
            table.add_row(name, part, si(cost.energy_joules, "J"), _range(cost), *cells)
    return table


def of_points(
    profile: Profile, points: Sequence[PointEstimate], deadline_seconds: float
) -> Iterator[str | Table]:
    """Yield the operating points of a profile, the cheapest that meets the deadline first, and a verdict."""
    table = tables.new("point", "clock", "time", "inference", "+ waiting", "= energy", "")
    for one in points:
        total = one.estimate.total
        joules = (total.energy_joules, one.idle_joules, one.energy_joules)
        cells = (si(one.hertz, "Hz"), si(total.seconds, "s"), *(si(each, "J") for each in joules))
        table.add_row(one.name, *cells, _strategy(one, points))
    idle = "" if profile.idle_watts is not None else " The profile states no idle power: waiting is free."
    yield f"{profile.id}, one inference in {si(deadline_seconds, 's')}"
    yield table
    yield f"{_verdict(points)}{idle}\n"


def of_devices(found: Mapping[str, Sequence[ParallelEstimate]], devices: int) -> Iterator[str | Table]:
    """Yield the table of one device and of several, by hardware."""
    table = tables.new("hardware", "devices", "energy", "90 % interval", "links", "time", "between results")
    for name, each in found.items():
        for one in each:
            times = si(one.total.seconds, "s"), si(one.seconds_between, "s")
            energy = si(one.total.energy_joules, "J"), _range(one.total)
            table.add_row(name, str(one.devices), *energy, si(one.link_bytes, "B"), *times)
    yield table
    used = max(each[-1].devices for each in found.values())
    if used < devices:
        yield f"\nOnly {used} of {devices} devices have layers to run."


def _range(cost: Cost) -> str:
    return f"{si(cost.energy_low, 'J')} to {si(cost.energy_high, 'J')}"


def _measured(found: Measured) -> Iterator[str]:
    """Yield the row of what was measured, with standard deviations; an estimate's columns stay empty."""
    joules = "not measured"
    if found.joules is not None and found.joules_sd is not None:
        joules = spread(found.joules, found.joules_sd, "J")
    yield from ("measured", joules, "", "", "", spread(found.seconds, found.seconds_sd, "s"))


def _layers(one: Estimate) -> Table:
    table = tables.new("layer", "operator", "energy", "DRAM traffic", "MACs", "time", "limited by", breaks=0)
    for layer in one.layers:
        cost = layer.cost
        cells = si(cost.dram_bytes, "B"), si(cost.macs, ""), si(cost.seconds, "s")
        table.add_row(layer.name, layer.op_type, si(cost.energy_joules, "J"), *cells, layer.bound)
    return table


def _strategy(one: PointEstimate, points: Sequence[PointEstimate]) -> str:
    """Name the strategy that a point stands for; empty for a point between the fastest and the slowest."""
    if not one.meets:
        return "too slow"
    clocks = [other.hertz for other in points if other.meets]
    if len(clocks) > 1 and one.hertz == max(clocks):
        return "race to idle"
    return "slow and steady" if len(clocks) > 1 and one.hertz == min(clocks) else ""


def _verdict(points: Sequence[PointEstimate]) -> str:
    best = points[0]
    if best.meets:
        return f"The cheapest point that meets the deadline is {best.name} at {si(best.hertz, 'Hz')}."
    fastest = min(one.estimate.total.seconds for one in points)
    return f"No point meets the deadline; the fastest takes {si(fastest, 's')}."
