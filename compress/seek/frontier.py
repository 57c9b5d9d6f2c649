"""A frontier: variants of one model from almost lossless to cheap, each scored."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from compress import units
from compress.errors import LimitError
from compress.results import Searched, SearchedPoint

if TYPE_CHECKING:
    from compress.model import Model

UNITS: Mapping[str, str] = {
    "energy": "J",
    "seconds": "s",
    "dram_bytes": "B",
    "flash": "B",
    "ram": "B",
    "file": "B",
    "macs": "",
}
"""Their units."""


@dataclass(frozen=True)
class Point:
    """One variant of a frontier.

    Attributes:
        plan: settings of the pass ``per-layer`` that makes it.
        passes: the passes that make it, as a recipe writes them; that one alone, unless it is fine-tuned.
        predicted: noise over signal at the outputs and every quantity, as the search predicted them.
        found: the same, of the variant itself.
        drop: points of the metric that it loses; None where none is measured.
        make: makes it.
    """

    plan: dict[str, Any]
    passes: list[dict[str, Any]]
    predicted: Mapping[str, float]
    found: Mapping[str, float]
    drop: float | None = None
    make: Callable[[], Model] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def model(self) -> Model:
        """The variant, made by the pass from all calibration data, as a recipe makes it.

        Raises:
            LimitError: the frontier was read from a file.
        """
        if self.make is None:
            raise LimitError("this frontier was read from a file; run its recipe for the models")
        return self.make()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the variant as an ONNX file."""
        self.model.save(path)

    @property
    def noise(self) -> float:
        """Noise over signal at the outputs."""
        return self.found["loss"]

    @property
    def snr_db(self) -> float:
        """Signal over noise at the outputs, in decibels; infinite without noise."""
        return _decibels(self.noise)

    @property
    def lost(self) -> float:
        """What is lost: points of the metric where it is measured, then noise."""
        return self.noise if self.drop is None else self.drop

    def score(self, name: str = "") -> SearchedPoint:
        """Return the variant as a run's results store it."""
        return SearchedPoint(
            name=name,
            plan=self.plan,
            passes=self.passes,
            predicted=dict(self.predicted),
            found=dict(self.found),
            drop=self.drop,
        )

    def __repr__(self) -> str:
        drop = "" if self.drop is None else f", {self.drop:+.4g} points lost"
        costs = ", ".join(
            f"{name} {units.si(self.found[name], unit)}"
            for name, unit in UNITS.items()
            if self.found.get(name)
        )
        return f"Point({self.snr_db:.1f} dB{drop}; {costs})"


@dataclass(frozen=True)
class Frontier:
    """Variants that no other beats, from the closest to the original to the cheapest.

    Attributes:
        minimised: the quantity that was minimised.
        hardware: the profile that prices it.
        original: costs of the original as it would be deployed there.
        points: the variants.
        evaluated: all that were made and measured, those of the frontier among them.
        notes: what else there is to say of the search.
    """

    minimised: str
    hardware: str
    original: Mapping[str, float]
    points: Sequence[Point]
    evaluated: Sequence[Point] = ()
    notes: Sequence[str] = field(default=())

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, number: int) -> Point:
        return self.points[number]

    def share(self, point: Point) -> float:
        """Return the minimised quantity of a variant over the original's."""
        return point.found[self.minimised] / self.original[self.minimised]

    def score(self) -> Searched:
        """Return the frontier as a run's results store it."""
        return Searched(
            minimised=self.minimised,
            hardware=self.hardware,
            original=dict(self.original),
            points=[each.score(f"search-{number}") for number, each in enumerate(self.points, start=1)],
            evaluated=[each.score() for each in self.evaluated],
            notes=[*self.notes],
        )

    def best(self, *, drop: float | None = None, min_snr: float | None = None, **most: float) -> Point:
        """Return the variant with the least cost that loses no more than stated, or the least lossy one.

        Args:
            drop: points of the metric that may be lost.
            min_snr: decibels that are kept.
            most: largest value of a quantity, as ``energy=1e-3``.

        Raises:
            LimitError: no variant of the frontier keeps the limits.
        """
        left = [
            point
            for point in self.points
            if (drop is None or (point.drop is not None and point.drop <= drop))
            and (min_snr is None or point.snr_db >= min_snr)
            and all(point.found[name] <= limit for name, limit in most.items())
        ]
        if not left:
            raise LimitError(f"no variant of the frontier keeps {self._stated(drop, min_snr, most)}")
        if drop is None and min_snr is None:
            return min(left, key=lambda point: (point.lost, point.found[self.minimised]))
        return min(left, key=lambda point: point.found[self.minimised])

    def _stated(self, drop: float | None, min_snr: float | None, most: Mapping[str, float]) -> str:
        stated = [
            *([] if drop is None else [f"a drop of {drop:g}"]),
            *([] if min_snr is None else [f"{min_snr:g} dB"]),
            *(f"{name} of {units.si(limit, UNITS.get(name, ''))}" for name, limit in most.items()),
        ]
        return " and ".join(stated)

    def _repr_html_(self) -> str:
        """Return a table for a notebook; `compress.report.search_frontier` draws it."""
        headers = (
            "",
            "SNR predicted",
            "found",
            f"{self.minimised} predicted",
            "found",
            "of the original",
            "lost",
        )
        rows = [headers, *(self._row(number, point) for number, point in enumerate(self, start=1))]
        cells = ("".join(f"<td>{html.escape(each)}</td>" for each in row) for row in rows)
        table = "".join(f"<tr>{each}</tr>" for each in cells)
        return f"<table><caption>{html.escape(self.hardware)}</caption>{table}</table>"

    def _row(self, number: int, point: Point) -> tuple[str, ...]:
        unit = UNITS[self.minimised]
        return (
            str(number),
            units.decibels(_decibels(point.predicted["loss"])),
            units.decibels(point.snr_db),
            units.si(point.predicted[self.minimised], unit),
            units.si(point.found[self.minimised], unit),
            units.share(self.share(point)),
            "" if point.drop is None else units.signed(point.drop),
        )

    def __repr__(self) -> str:
        each = "".join(f"\n  {self.share(point):.3f} of the {self.minimised}: {point!r}" for point in self)
        return f"Frontier({units.count(len(self), 'variant')} on {self.hardware}){each}"


def _decibels(noise: float) -> float:
    return -10 * math.log10(noise) if noise else math.inf


def undominated(points: Sequence[Point], quantity: str) -> list[Point]:
    """Return the points that none beats in both loss and cost, the least lossy first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (each.lost, each.noise, each.found[quantity])):
        if not found or point.found[quantity] < found[-1].found[quantity]:
            found.append(point)
    return found


def spread(points: Sequence[Point], quantity: str, most: int) -> list[Point]:
    """Return at most so many of the points of a frontier, both ends and those that lie most apart."""
    left = list(points)
    while len(left) > most:
        logs = [math.log(point.found[quantity]) for point in left]
        inner = range(1, len(left) - 1)
        closest = min(inner, key=lambda place: logs[place - 1] - logs[place + 1])
        del left[closest]
    return left
