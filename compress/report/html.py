"""Results as one HTML file that needs no network.

The page carries the part of plotly.js that it draws with (scatter, bar and treemap; MIT), which
``assets/plotly.build.mjs`` bundles: 1.12 MB, where the full bundle of the Python package is 4.8 MB.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress import estimator, units
from compress.changes import by_pass
from compress.report import searching
from compress.report.page import asset, figure, rendered, save
from compress.report.plots.bars import dram_by_layer, energy_by_component, energy_by_layer
from compress.report.plots.front import accuracy_vs_energy
from compress.report.plots.integers import integers_by_layer
from compress.report.plots.rooflines import roofline
from compress.report.plots.search import choices_by_layer, search_frontier
from compress.report.plots.treemap import bytes_by_layer
from compress.report.summary import all_remarks, indistinct, original, profiles, spent
from compress.results import HardwareScore, Results, VariantResult

ROWS_OF_A_PASS = 80
"""Most layers listed under a pass, to keep the page small, unless what integers mean in each was measured;
results.json has them all."""


def write(results: Results, path: str | os.PathLike[str]) -> Path:
    """Write the report, whole or not at all.

    Raises:
        StoreError: the file could not be written.
    """
    return save(render(results), path)


def render(results: Results) -> str:
    """Return the report as HTML; every string of the user's is escaped."""
    finished = [variant for variant in results.variants if variant.status == "done"]
    figures = _figures(results)
    return rendered(
        "report.html.j2",
        figures,
        title=results.recipe.get("title") or Path(str(results.recipe.get("path") or "Results")).stem,
        results=results,
        finished=finished,
        unchanged=[variant for variant in results.variants if variant.status == "unchanged"],
        failed=[variant for variant in results.variants if variant.status == "failed"],
        profiles=profiles(results),
        reference=original(results),
        packed=any(variant.packed_bytes for variant in finished),
        metric=next((variant.metric for variant in finished if variant.metric), None),
        indistinct={profile: indistinct(results, profile) for profile in profiles(results)},
        remarks=list(all_remarks(results)),
        made={
            each.name: estimator.spending.total(each.making, each.name) for each in finished if each.making
        },
        spent=list(spent(results)),
        by_pass=by_pass,
        rows_of_a_pass=ROWS_OF_A_PASS,
        first_explained=next((v for v in results.variants if any(c.effect for c in v.changes)), None),
        leaders=list(_leaders(results)),
        searched=searching.rows(results.searched) if results.searched else [],
        searched_cost=searching.cost(results.searched) if results.searched else "",
        searched_layers=len(searching.layers(results.searched.points)) if results.searched else 0,
        recipe=json.dumps(results.recipe, indent=2, ensure_ascii=False, default=str),
        environment=dict(_flat(results.environment)),
        is_drawn=any(figures.values()),
        script=asset("report.js"),
    )


def _leaders(results: Results) -> Iterator[dict[str, Any]]:
    """Yield the best variant in each respect; ``hardware`` is empty where it does not depend on hardware."""
    reference = original(results)
    rivals = [v for v in results.variants if v.status == "done" and v is not reference]
    for profile in profiles(results):
        scored = [(variant, variant.hardware[profile]) for variant in rivals if profile in variant.hardware]
        base = reference.hardware.get(profile) if reference else None
        for what, field, unit in (("energy", "energy_joules", "J"), ("DRAM traffic", "dram_bytes", "B")):
            against = getattr(base, field, 0.0)
            values = [(variant, getattr(score, field)) for variant, score in scored]
            yield from _leader(
                f"Least {what} on {profile}",
                profile,
                [(v, value, units.si(value, unit), units.ratio(value, against)) for v, value in values],
            )
    yield from _leader("Smallest file", "", [(v, *_size(v, reference)) for v in rivals])
    timed = [(variant, variant.latency_seconds) for variant in rivals]
    yield from _leader(
        "Lowest latency here",
        "",
        [(v, t.ratio, units.si(t.median, "s"), units.ratio(t.ratio, 1.0)) for v, t in timed if t],
    )


def _size(variant: VariantResult, reference: VariantResult | None) -> tuple[float, str, str]:
    size = variant.file_bytes
    return size, units.si(size, "B"), units.ratio(size, reference.file_bytes if reference else 0)


def _leader(
    what: str, hardware: str, rivals: list[tuple[VariantResult, float, str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield the rival with the smallest number, if there are any: each a variant, number, text and ratio."""
    if rivals:
        variant, _, value, share = min(rivals, key=lambda rival: rival[1])
        yield {"what": what, "hardware": hardware, "variant": variant, "value": value, "share": share}


def _figures(results: Results) -> dict[str, Any]:
    """Return all figures for the page's script: by profile, and by profile and variant."""
    reference = original(results)
    figures: dict[str, Any] = {"profiles": {}, "passes": dict(_passes(results)), "search": _search(results)}
    for profile in profiles(results):
        scored = {v.name: v.hardware[profile] for v in results.variants if profile in v.hardware}
        base = reference.hardware.get(profile) if reference else None
        figures["profiles"][profile] = {
            "front": figure(accuracy_vs_energy(results, profile), _energies(scored, profile)),
            "components": figure(energy_by_component(results, profile), _energies(scored, profile)),
            "variants": {
                name: _by_layer(name, score, base if reference and name != reference.name else None)
                for name, score in scored.items()
                if score.layers
            },
        }
    return figures


def _by_layer(name: str, score: HardwareScore, base: HardwareScore | None) -> dict[str, Any]:
    costliest = max(score.layers, key=lambda layer: sum(layer.energy.values()))
    busiest = max(score.layers, key=lambda layer: layer.dram_bytes)
    total = f"{len(score.layers)} layers of {name}"
    return {
        "energy": figure(
            energy_by_layer(score, base),
            f"{units.si(score.energy_joules, 'J')} in {total}, most of it in {costliest.name}.",
        ),
        "dram": figure(
            dram_by_layer(score, base),
            f"{units.si(score.dram_bytes, 'B')} in {total}, most of it in {busiest.name}.",
        ),
        "bytes": figure(
            bytes_by_layer(score, base),
            f"{units.si(score.dram_bytes, 'B')} in {total}, as tiles of weights and of activations.",
        ),
        "roofline": figure(roofline(score, base), f"{total}: rate of work against work per byte."),
    }


def _passes(results: Results) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the figures of passes that know what integers mean in each layer, by variant and step."""
    for variant in results.variants:
        for step, done in enumerate(by_pass(variant.changes)):
            if any(effect.is_measured for effect in done.effects.values()):
                label = f"What integers mean in each layer of {variant.name}: {done}."
                yield f"{variant.name} {step}", figure(integers_by_layer(done.effects), label)


def _search(results: Results) -> dict[str, Any]:
    """Return the figures of a search, if there was one."""
    found = results.searched
    if found is None:
        return {}
    label = f"{units.count(len(found.points), 'variant')} of a search on {found.hardware}"
    return {
        "frontier": figure(search_frontier(found, results), f"{label}: SNR against {searching.cost(found)}."),
        "choices": figure(choices_by_layer(found), f"{label}: what each layer becomes."),
    }


def _energies(scored: Mapping[str, HardwareScore], profile: str) -> str:
    listed = (f"{name} {units.si(score.energy_joules, 'J')}" for name, score in scored.items())
    return f"Energy of one inference on {profile}: {', '.join(listed)}."


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as dotted names and text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield (
                f"{before}{key}",
                ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value),
            )
