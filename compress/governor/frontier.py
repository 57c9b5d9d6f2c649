"""What may answer a request, and the few options that are worth a joule."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress import units
from compress.errors import InputError, did_you_mean
from compress.estimator import compare_points, load
from compress.results import Results, VariantResult


@dataclass(frozen=True)
class Option:
    """One way to answer a request: a variant, at an operating point where the hardware has several."""

    name: str
    quality: float
    """Expected quality of an answer, such as accuracy; more is better."""
    joules: float
    seconds: float = 0.0
    point: str = ""
    """Voltage and clock, by the profile's name for them."""
    path: Path | None = None
    """The ONNX file."""

    def __str__(self) -> str:
        return f"{self.name} at {self.point}" if self.point else self.name


@dataclass(frozen=True)
class Frontier:
    """The options on the upper convex hull of quality against joules, cheapest first.

    Between two neighbours a joule buys `slopes` of quality, less with every step: so one price of a joule
    tells which option is worth it.
    """

    options: tuple[Option, ...]
    unanswered: float = 0.0
    """Quality of no answer at all."""

    @property
    def slopes(self) -> tuple[float, ...]:
        """Quality that a joule more buys, from each option to the next; falls from step to step."""
        return tuple(
            (high.quality - low.quality) / (high.joules - low.joules)
            for low, high in zip(self.options, self.options[1:], strict=False)
        )

    @property
    def cheapest(self) -> Option:
        """The option of least energy."""
        return self.options[0]

    @property
    def worth_of_an_answer(self) -> float:
        """Quality that a joule of the cheapest option buys, over no answer."""
        return (self.cheapest.quality - self.unanswered) / self.cheapest.joules

    @classmethod
    def of(
        cls, options: Iterable[Option], *, deadline_seconds: float | None = None, unanswered: float = 0.0
    ) -> Frontier:
        """Return the hull of the options that meet the deadline.

        Raises:
            InputError: there are no options, none meets the deadline, or one has no energy.
        """
        known = list(options)
        if not known:
            raise InputError("there are no variants to choose among")
        for each in known:
            if not each.joules > 0 or each.quality != each.quality:
                raise InputError(f"{each}: its energy must be above 0 and its quality a number")
        met = [each for each in known if deadline_seconds is None or each.seconds <= deadline_seconds]
        if not met:
            fastest = min(known, key=lambda each: each.seconds)
            raise InputError(
                f"no variant meets the deadline of {units.si(deadline_seconds or 0.0, 's')}: "
                f"the fastest, {fastest}, takes {units.si(fastest.seconds, 's')}"
            )
        return cls(tuple(_hull(met)), unanswered)


def _hull(options: Sequence[Option]) -> Iterator[Option]:
    """Yield the cheapest option, and then each time the one that buys most quality a joule."""
    last = min(options, key=lambda each: (each.joules, -each.quality))
    while True:
        yield last
        better = [each for each in options if each.joules > last.joules and each.quality > last.quality]
        if not better:
            return
        slopes = {each: (each.quality - last.quality) / (each.joules - last.joules) for each in better}
        last = max(better, key=lambda each: (slopes[each], each.joules))


@dataclass(frozen=True)
class Family:
    """The variants of a run as options."""

    options: tuple[Option, ...]
    unanswered: float = 0.0
    """Quality of no answer."""
    measure: str = "quality"
    """What quality is."""


def of_run(folder: str | os.PathLike[str], hardware: str | None = None) -> Family:
    """Return the options that a run has written.

    Quality is the run's metric, its sign turned where lower is better; without a metric it is the agreement
    with the original. No answer is worth nothing where higher is better, and else as bad again as the worst
    variant.

    Args:
        folder: what ``compress run -o`` wrote.
        hardware: the profile whose joules count; the run's first if left out.

    Raises:
        InputError: there is no such run, or no variant was scored on the hardware.
    """
    home = Path(folder)
    results = Results.load(home / "results.json")
    done = [each for each in results.variants if each.status == "done"]
    scored = list(dict.fromkeys(name for each in done for name in each.hardware))
    if not scored:
        raise InputError(f"{home}: the run has no variant with a score on hardware; name some in its recipe")
    chosen = hardware or scored[0]
    if chosen not in scored:
        raise InputError(f"{home}: the run has no score on hardware {chosen!r}{did_you_mean(chosen, scored)}")
    measure, qualities = _qualities([each for each in done if chosen in each.hardware])
    options = tuple(
        option
        for variant, quality in qualities
        for option in _points(variant, home / variant.path, chosen, quality)
    )
    worst = min(option.quality for option in options)
    return Family(options, 2 * worst if worst < 0 and measure.startswith("−") else 0.0, measure)


def _qualities(variants: Sequence[VariantResult]) -> tuple[str, list[tuple[VariantResult, float]]]:
    """Return what variants are ranked by, and each with its value, more being better."""
    metrics = [each.metric for each in variants if each.metric is not None]
    if len(metrics) == len(variants):
        sign, before = (1, "") if metrics[0].better == "higher" else (-1, "−")
        values = [sign * metric.value for metric in metrics]
        return before + metrics[0].name, list(zip(variants, values, strict=True))
    for name in ("top1", "cosine", "equal"):
        close = [getattr(each.agreement, name, None) for each in variants]
        known = [value for value in close if value is not None]
        if len(known) == len(variants):
            return f"agreement ({name})", list(zip(variants, known, strict=True))
    raise InputError("the run has neither a metric nor one kind of agreement with the original to rank by")


def _points(variant: VariantResult, path: Path, hardware: str, quality: float) -> Iterator[Option]:
    """Yield the variant at every operating point, on the scale of the score that the run gave it."""
    score = variant.hardware[hardware]
    option = Option(variant.name, quality, score.energy_joules, score.seconds, path=path)
    profile = load(hardware)
    if not profile.operating_points or not path.is_file():
        yield option
        return
    points = compare_points(path, profile, shapes=variant.shapes)
    base = next(each for each in points if each.name == profile.operating_points[0].name).estimate.total
    for each in points:
        total = each.estimate.total
        joules = score.energy_joules * total.energy_joules / base.energy_joules
        seconds = score.seconds * total.seconds / base.seconds
        yield replace(option, joules=joules, seconds=seconds, point=each.name)
