"""What a search has found, in words: predicted and found, and what was chosen by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from compress import units
from compress.results import Searched, SearchedPoint

UNITS = {"energy": "J", "seconds": "s", "macs": ""}
"""Units of what can be minimised; the others are bytes."""
WORDS = {
    "seconds": "time",
    "dram_bytes": "DRAM traffic",
    "file": "size of the file",
    "macs": "multiplications",
}
"""What can be minimised, in words where its name is none."""
HALF, FLOAT = 16, 32
"""Bits of weights in float16, and of those that stay as they are."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What one layer becomes in a variant."""

    bits: int
    """Of its weights; 16 is float16, 32 what they were."""
    in_integers: bool
    kept: float
    """Share of its channels."""

    def __str__(self) -> str:
        weights = {FLOAT: "float weights", HALF: "float16 weights"}.get(self.bits, f"{self.bits}-bit weights")
        arithmetic = "multiplies integers" if self.in_integers else "multiplies floats"
        return f"{weights}, {arithmetic}, keeps {self.kept:.0%} of its channels"


@dataclass(frozen=True, slots=True)
class Row:
    """A variant of a frontier, in numbers as a reader sees them."""

    name: str
    predicted_loss: str
    found_loss: str
    predicted_cost: str
    found_cost: str
    share: str
    """Of the original's cost, as found."""
    drop: str
    chosen: str


def layers(points: Sequence[SearchedPoint]) -> list[str]:
    """Return the layers about which anything was chosen, in the order of the network."""
    named = [
        [*point.plan.get("weights", {}), *map(_maker, point.plan.get("channels", {}))] for point in points
    ]
    return list(dict.fromkeys(name for names in sorted(named, key=len, reverse=True) for name in names))


def choices(plan: Mapping[str, Any], named: Sequence[str]) -> list[Choice]:
    """Return what each of the layers becomes by a plan."""
    bits, integers = plan.get("weights", {}), plan.get("activations", ())
    kept: dict[str, float] = {}
    for group, share in plan.get("channels", {}).items():
        kept[_maker(group)] = min(share, kept.get(_maker(group), 1.0))
    return [Choice(bits.get(name, FLOAT), name in integers, kept.get(name, 1.0)) for name in named]


def rows(searched: Searched) -> list[Row]:
    """Return the variants of the frontier, from the closest to the original to the cheapest."""
    named, quantity = layers(searched.points), searched.minimised
    unit = UNITS.get(quantity, "B")
    return [
        Row(
            point.name,
            units.decibels(snr(point.predicted)),
            units.decibels(snr(point.found)),
            units.si(point.predicted[quantity], unit),
            units.si(point.found[quantity], unit),
            units.ratio(point.found[quantity], searched.original[quantity]),
            "" if point.drop is None else units.signed(point.drop),
            summary(choices(point.plan, named))
            + ", fine-tuned" * any("finetune" in one for one in point.passes),
        )
        for point in searched.points
    ]


def snr(numbers: Mapping[str, float]) -> float:
    """Return signal over noise at the outputs in dB; infinite without noise."""
    return -10 * math.log10(numbers["loss"]) if numbers["loss"] > 0 else math.inf


def cost(searched: Searched) -> str:
    """Return what was to be small, in words."""
    return WORDS.get(searched.minimised, searched.minimised)


def summary(chosen: Sequence[Choice]) -> str:
    """Return in one line what the layers become."""
    if all(each == Choice(FLOAT, False, 1.0) for each in chosen):
        return "as it was"
    return ", ".join(_parts(chosen))


def table(searched: Searched) -> Table:
    """Return the frontier as a table for a terminal."""
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="", show_edge=False)
    found.add_column("variant", style="bold", vertical="bottom")
    headers = ["SNR\npredicted", "\nfound", f"{cost(searched)}\npredicted", "\nfound", ""]
    dropped = any(point.drop is not None for point in searched.points)
    for header in [*headers, *["points\nlost"] * dropped]:
        found.add_column(header, justify="right", no_wrap=True)
    for row in rows(searched):
        numbers = [row.predicted_loss, row.found_loss, row.predicted_cost, row.found_cost, row.share]
        found.add_row(row.name, *numbers, *[row.drop] * dropped)
    return found


def _parts(chosen: Sequence[Choice]) -> Iterator[str]:
    counts: dict[int, int] = {}
    for each in chosen:
        counts[each.bits] = counts.get(each.bits, 0) + 1
    for bits, number in sorted(counts.items()):
        name = {FLOAT: "float", HALF: "float16"}.get(bits, f"{bits} bits")
        yield f"{name} in {units.count(number, 'layer')}"
    integers = sum(each.in_integers for each in chosen)
    if integers:
        yield f"integers multiplied in {'all' if integers == len(chosen) else integers}"
    kept = [each.kept for each in chosen if each.kept < 1]
    if kept:
        span = f"{min(kept):.0%}" + f" to {max(kept):.0%}" * (min(kept) < max(kept))
        yield f"{span} of the channels kept behind {units.count(len(kept), 'layer')}"


def _maker(group: str) -> str:
    """Return the layer that makes the channels of a group, whose kind may stand behind its name."""
    return group.partition(" (")[0]
