"""The account of a pass: a change for every layer that it looked at."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compress import units

PASSES_SHOWN = 6
"""How many passes ``repr(changes)`` names; earlier ones are only counted."""


class Reason(StrEnum):
    """Why a pass left a weight as it was; a record may say more behind a colon."""

    LEFT_OUT = "left out by include or exclude"
    SETTINGS = "left by the settings of the pass"
    USE = "used in a way that the pass does not treat"
    SHARED = "shared with another layer"
    VECTOR = "one number for each channel, as in a bias"
    SMALL = "too small to gain"
    LOSS = "would lose too much"
    NO_GAIN = "nothing to gain"
    CODES = "already stored as integers"
    TYPE = "stored in a type that the pass does not read"
    NOT_FINITE = "holds infinite or NaN values"
    INPUT = "an input of the graph may replace it"
    OUTPUT = "an output of the graph"
    BODY = "in a body of If, Loop or Scan that the pass does not enter"
    ABSENT = "nothing in the model that the pass works on"

    __repr__ = str.__repr__

    def because(self, detail: str) -> str:
        """Return the reason with a detail behind it."""
        return f"{self}: {detail}"

    @classmethod
    def of(cls, text: str) -> Reason:
        """Return the reason that a record's `skipped` begins with.

        Raises:
            ValueError: it is none of them.
        """
        return cls(text.partition(":")[0])


@dataclass(frozen=True, slots=True)
class Effect:
    """What it means for the whole network that one layer multiplies integers, and what was chosen."""

    in_integers: bool
    """Whether the layer multiplies integers; else it was left in float arithmetic."""
    snr_db: float | None = None
    """Signal-to-noise ratio at the outputs if this layer alone is in integers; None where nothing asked."""
    time_in_floats: float | None = None
    """Its share of the time of a run in floats; None where the runtime's profile does not tell."""
    time_in_integers: float | None = None
    """Its time if it multiplies integers, in parts of the same run in floats."""
    why: str = ""
    """Why it was left in float; empty if it was not."""

    @property
    def is_measured(self) -> bool:
        """Whether noise or time is known."""
        return self.snr_db is not None or self.time_won is not None

    @property
    def time_won(self) -> float | None:
        """The part of a run in floats that integers save; None where that is not known."""
        if self.time_in_floats is None or self.time_in_integers is None:
            return None
        return self.time_in_floats - self.time_in_integers

    def __str__(self) -> str:
        """Say in words what was chosen and what integers mean."""
        known = [] if self.snr_db is None else [f"{self.snr_db:.0f} dB at the outputs"]
        if self.time_won is not None:
            known.append(f"{self.time_in_integers:.1%} of the time instead of {self.time_in_floats:.1%}")
        chosen = [] if self.in_integers else [f"left in float: {self.why}" if self.why else "left in float"]
        measured = [f"integers: {', '.join(known)}"] if known else []
        return "; ".join(chosen + measured) or "integers"


@dataclass(frozen=True, slots=True)
class Change:
    """What a pass did to one layer, or why it left the layer alone."""

    layer: str
    """Name of the node, or of the tensor, that was changed."""
    action: str = ""
    """What was done, in words; empty when the layer was skipped."""
    bytes_before: int = 0
    """Stored bytes of the layer's weights before the pass."""
    bytes_after: int = 0
    """Stored bytes after it: scales, zero points and codebooks included."""
    error: float | None = None
    """Relative error of the weights, ``|w - w'| / |w|`` in the Frobenius norm; None where there is none."""
    skipped: str = ""
    """Why nothing was done: a `Reason`, perhaps with a detail behind a colon; empty when something was."""
    by: str = ""
    """Name of the pass."""
    effect: Effect | None = None
    """What integers mean for the network in this layer, where the pass has measured it."""
    fell_short: str = ""
    """What the pass was asked for and could not reach, in words; it did the next best."""


class Changes(tuple[Change, ...]):
    """Changes in the order they were made; ``repr`` gives one line for each pass."""

    __slots__ = ()

    def __repr__(self) -> str:
        done = by_pass(self)
        lines = [f"{each.name or 'unnamed'}: {each}" for each in done[-PASSES_SHOWN:]]
        earlier = len(done) - len(lines)
        before = [units.count(earlier, "earlier pass", "earlier passes")] if earlier else []
        return "\n".join(before + lines) or "no changes"


@dataclass(frozen=True, slots=True)
class PassSummary:
    """What one pass did, layer by layer and in total."""

    name: str
    changed: tuple[Change, ...]
    """Layers that it changed."""
    listed: tuple[Change, ...]
    """Their records, and those of layers that say what integers mean."""
    skipped: tuple[tuple[str, tuple[str, ...]], ...]
    """Reasons for leaving layers alone, with the layers, most layers first."""
    bytes_before: int
    bytes_after: int
    worst: Change | None
    """The change with the largest error, where any has one."""
    effects: Mapping[str, Effect]
    """What integers mean in each layer for which that is known, by its name."""
    left_in_float: tuple[tuple[str, tuple[str, ...]], ...]
    """Why some of these stay in float arithmetic, with the layers, most layers first."""

    def __str__(self) -> str:
        """Say in a few words what the pass did."""
        if not self.changed:
            return "changed nothing"
        parts = [units.count(len(self.changed), "layer")]
        if self.bytes_before or self.bytes_after:
            before, after = units.si(self.bytes_before, "B"), units.si(self.bytes_after, "B")
            parts.append(f"{before} → {after} {units.ratio(self.bytes_after, self.bytes_before)}".rstrip())
        if self.worst is not None and self.worst.error is not None:
            parts.append(f"worst error {self.worst.error:.2g} in {self.worst.layer}")
        if self.effects:
            integers = sum(effect.in_integers for effect in self.effects.values())
            parts.append(f"{integers} of {units.count(len(self.effects), 'layer')} in integers")
        return ", ".join(parts)


def by_pass(changes: Sequence[Change]) -> list[PassSummary]:
    """Return a summary of each pass, in the order they ran."""
    return [_summary(name, tuple(group)) for name, group in itertools.groupby(changes, lambda c: c.by)]


def _summary(name: str, changes: Iterable[Change]) -> PassSummary:
    changes = tuple(changes)
    changed = tuple(change for change in changes if change.action)
    effects = {change.layer: change.effect for change in changes if change.effect}
    return PassSummary(
        name=name,
        changed=changed,
        listed=tuple(change for change in changes if change.action or change.effect),
        skipped=_grouped((change.layer, change.skipped) for change in changes),
        bytes_before=sum(change.bytes_before for change in changed),
        bytes_after=sum(change.bytes_after for change in changed),
        worst=max(
            (change for change in changed if change.error is not None),
            key=lambda change: change.error or 0.0,
            default=None,
        ),
        effects=effects,
        left_in_float=_grouped((layer, effect.why) for layer, effect in effects.items()),
    )


def _grouped(reasons: Iterable[tuple[str, str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return reasons with the layers that have them, most layers first; layers without one are left out."""
    grouped: dict[str, list[str]] = {}
    for layer, reason in reasons:
        if reason:
            grouped.setdefault(reason, []).append(layer)
    return tuple(
        (reason, tuple(layers)) for reason, layers in sorted(grouped.items(), key=lambda r: -len(r[1]))
    )
