"""What every report needs of a run: the original, the profiles, and variants that cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from compress import estimator, units
from compress.results import HardwareScore, Results, VariantResult

if TYPE_CHECKING:
    from compress.estimator import Estimate

NAMED = 3
"""Most loops of a kind that a sentence names."""


def original(results: Results) -> VariantResult | None:
    """Return the finished variant without passes, the reference of all ratios; None if there is none."""
    return next((v for v in results.variants if v.status == "done" and not v.passes), None)


def profiles(results: Results) -> list[str]:
    """Return the hardware profiles that any variant was scored on, in the order of the run."""
    return list(dict.fromkeys(name for variant in results.variants for name in variant.hardware))


def _tie(one: HardwareScore, other: HardwareScore) -> bool:
    found = estimator.ratio(one, other)
    return found is not None and not found.is_clear


def remarks(score: Estimate | HardwareScore) -> Iterator[tuple[str, float | None]]:
    """Yield in words what is converted, what is left out (with its share of all bytes), what loops count."""
    for type_, deployed in score.runs_as.items():
        yield f"{type_} deployed as {deployed}", None
    if score.timed:
        yield "energy follows from the measured latency", None
    for operator, share in score.uncosted.items():
        yield f"the arithmetic of {operator} is not counted", share
    for operator, share in score.on_host.items():
        yield f"{operator} runs on the host and is left out", share
    alike: dict[tuple[str, int, str], list[str]] = {}
    for name, loop in score.loops.items():
        alike.setdefault((loop.op_type, loop.bodies, loop.why), []).append(name)
    for (operator, bodies, why), names in alike.items():
        named = ", ".join(map(repr, names[:NAMED])) + (
            f" and {len(names) - NAMED} more" * (len(names) > NAMED)
        )
        yield f"{operator} {named} counts {units.count(bodies, 'body', 'bodies')}: {why}", None


def all_remarks(results: Results) -> Iterator[str]:
    """Yield the remarks on all variants of a run: where they do not run, on their outputs, on their scores.

    The variants that a remark is on are named unless it is all of those that were compared or scored.
    """
    said: dict[tuple[str, str], list[str]] = {}
    for variant in results.variants:
        for remark in variant.agreement.remarks if variant.agreement else ():
            said.setdefault(("", remark), []).append(variant.name)
    for variant in results.variants:
        for profile, score in variant.hardware.items():
            for remark, _ in remarks(score):
                said.setdefault((profile, remark), []).append(variant.name)
    refused: dict[str, list[str]] = {}
    for variant in results.variants:
        for reason in variant.refused.values():
            refused.setdefault(reason, []).append(variant.name)
    for reason, names in refused.items():
        yield f"{', '.join(names)}: {reason}"
    for (profile, remark), names in said.items():
        alike = (profile in each.hardware if profile else each.agreement for each in results.variants)
        whose = f" (in {', '.join(names)})" if len(names) < sum(map(bool, alike)) else ""
        yield f"{profile}: {remark}{whose}" if profile else f"{remark}{whose}"


def spent(results: Results) -> Iterator[str]:
    """Yield what the run cost, and its greenhouse gases where the recipe states the grid."""
    run, carbon = results.spent, results.carbon
    if run is None:
        return
    low, high = units.si(run.estimated_low, "J"), units.si(run.estimated_high, "J")
    told = f"estimated {units.si(run.estimated_joules, 'J')} ({low} to {high}) on the profile cpu"
    if run.measured_joules is not None:
        told += f", measured {units.si(run.measured_joules, 'J')} by {run.meter}"
    yield f"this run: {told}" + ("" if run.measured_joules is not None else f"; {run.meter}")
    if carbon is not None:
        grams, grid = units.si(carbon.run_grams, "g"), f"{carbon.grams_per_kwh:g} g/kWh"
        yield f"this run: {grams} of CO2 equivalent at the stated {grid} ({run.how} joules)"


def indistinct(results: Results, hardware: str) -> dict[str, tuple[str, ...]]:
    """Return the variants that the estimate cannot tell apart on one profile.

    They tie where it is less than 90 % sure which of them takes less energy. Each variant is compared
    with the original and with its neighbours in the order of energy.

    Returns:
        For each variant the names of those it cannot be told from, the original first; variants
        that can be told from all of them are left out.
    """
    reference = original(results)
    scored = [(v.name, v.hardware[hardware]) for v in results.variants if hardware in v.hardware]
    scored.sort(key=lambda pair: pair[1].energy_joules)
    found: dict[str, tuple[str, ...]] = {}
    for position, (name, score) in enumerate(scored):
        near = [pair for pair in scored if reference is not None and pair[0] == reference.name]
        near += scored[max(0, position - 1) : position] + scored[position + 1 : position + 2]
        alike = dict.fromkeys(other for other, theirs in near if other != name and _tie(score, theirs))
        if alike:
            found[name] = tuple(alike)
    return found
