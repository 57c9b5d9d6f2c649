"""What every report says of a run: what ratios refer to, what cannot be told apart, what passes did."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from compress.changes import Change
from compress.results import ChangeRecord, Results, VariantResult

AnyChange: TypeAlias = Change | ChangeRecord


@dataclass(frozen=True, slots=True)
class PassSummary:
    """What one pass did, layer by layer and in sum."""

    name: str
    changed: tuple[AnyChange, ...]
    """Layers that it changed."""
    skipped: tuple[tuple[str, tuple[str, ...]], ...]
    """Reasons for leaving layers alone, with the layers, most layers first."""
    bytes_before: int
    bytes_after: int
    worst: AnyChange | None
    """The change with the largest error, where any has one."""


def original(results: Results) -> VariantResult | None:
    """Return the finished variant that no pass touched: what all ratios are taken against."""
    return next((v for v in results.variants if v.status == "done" and not v.passes), None)


def profiles(results: Results) -> list[str]:
    """Return the hardware profiles that any variant was scored on, in the order of the run."""
    return list(dict.fromkeys(name for variant in results.variants for name in variant.hardware))


def indistinct(results: Results, hardware: str) -> dict[str, tuple[str, ...]]:
    """Tell which variants the estimate cannot tell apart on one profile.

    Two variants are not distinguishable where their ranges of energy, low to high, overlap. Each
    variant is held against the original and against its neighbours in the order of energy.

    Returns:
        For each variant the names it cannot be told from, the original first; variants that stand
        alone are left out.
    """
    reference = original(results)
    scored = [(v.name, v.hardware[hardware]) for v in results.variants if hardware in v.hardware]
    scored.sort(key=lambda pair: pair[1].energy_joules)
    found: dict[str, tuple[str, ...]] = {}
    for position, (name, score) in enumerate(scored):
        near = [pair for pair in scored if reference is not None and pair[0] == reference.name]
        near += scored[max(0, position - 1) : position] + scored[position + 1 : position + 2]
        alike = dict.fromkeys(
            other
            for other, theirs in near
            if other != name
            and score.energy_low <= theirs.energy_high
            and theirs.energy_low <= score.energy_high
        )
        if alike:
            found[name] = tuple(alike)
    return found


def by_pass(changes: Sequence[AnyChange]) -> list[PassSummary]:
    """Group what was done by pass, in the order of work."""
    return [_summary(name, tuple(group)) for name, group in itertools.groupby(changes, lambda c: c.by)]


def _summary(name: str, changes: Iterable[AnyChange]) -> PassSummary:
    changes = tuple(changes)
    changed = tuple(change for change in changes if change.action)
    reasons: dict[str, list[str]] = {}
    for change in changes:
        if change.skipped:
            reasons.setdefault(change.skipped, []).append(change.layer)
    return PassSummary(
        name=name,
        changed=changed,
        skipped=tuple(
            (reason, tuple(layers)) for reason, layers in sorted(reasons.items(), key=lambda r: -len(r[1]))
        ),
        bytes_before=sum(change.bytes_before for change in changed),
        bytes_after=sum(change.bytes_after for change in changed),
        worst=max(
            (change for change in changed if change.error is not None),
            key=lambda change: change.error or 0.0,
            default=None,
        ),
    )
