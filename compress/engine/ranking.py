"""What follows from comparing variants: deltas, ratios, limits missed, the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from compress import estimator
from compress.recipe.values import Variant
from compress.results import Carbon, HardwareScore, Making, VariantResult


def compared(variants: Sequence[Variant], results: Sequence[VariantResult]) -> list[VariantResult]:
    """Add what depends on the other variants: deltas, ratios, limits missed, the Pareto front."""
    original = results[0]
    finished = []
    for variant, result in zip(variants, results, strict=True):
        changed: dict[str, Any] = {}
        if result.metric is not None and original.metric is not None:
            delta = result.metric.value - original.metric.value
            changed["metric"] = result.metric.model_copy(update={"delta": delta})
        if result.name != original.name:
            made = estimator.spending.total(result.making, result.name)
            changed["hardware"] = {
                name: _against(original, name, each, made) for name, each in result.hardware.items()
            }
        result = result.model_copy(update=changed)
        if variant.budget is not None and result.status == "done":
            missed = variant.budget.missed(result, original)
            result = result.model_copy(update={"limits_missed": missed})
        finished.append(result)
    profiles = dict.fromkeys(name for result in finished for name in result.hardware)
    fronts = {name: set(_front(name, finished)) for name in profiles}
    return [
        result.model_copy(update={"pareto": [name for name, front in fronts.items() if result.name in front]})
        for result in finished
    ]


def _against(original: VariantResult, hardware: str, score: HardwareScore, made: Making) -> HardwareScore:
    """Return a score with its ratio to the original's, and with when it pays, if there is one."""
    base = original.hardware.get(hardware)
    if base is None:
        return score
    score = score.model_copy(update={"ratio": estimator.ratio(score, base)})
    return score.model_copy(update={"payback": estimator.spending.payback(made, score, base)})


def carbon(results: Sequence[VariantResult], spent: Making, grams_per_kwh: float) -> Carbon:
    """Return the greenhouse gases of a run, and of the making of its variants."""
    made = {each.name: estimator.spending.total(each.making, each.name) for each in results if each.making}
    return Carbon(
        grams_per_kwh=grams_per_kwh,
        run_grams=estimator.spending.grams(spent.joules, grams_per_kwh),
        making_grams={
            name: estimator.spending.grams(each.joules, grams_per_kwh) for name, each in made.items()
        },
    )


def _front(hardware: str, results: Iterable[VariantResult]) -> Iterator[str]:
    """Yield the Pareto-optimal variants: none is as good in both quality and energy, and better in one."""
    points = {
        result.name: (good, -result.hardware[hardware].energy_joules)
        for result in results
        if result.status == "done" and hardware in result.hardware and (good := quality(result)) is not None
    }
    for name, point in points.items():
        rivals = (other for other in points.values() if other != point)
        if not any(
            all(theirs >= ours for theirs, ours in zip(rival, point, strict=True)) for rival in rivals
        ):
            yield name


def quality(result: VariantResult) -> float | None:
    """Return the metric, higher is better; without one, agreement with the original; None if unknown."""
    if result.metric is not None:
        return result.metric.value if result.metric.better == "higher" else -result.metric.value
    return result.agreement.decibels if result.agreement is not None else 0.0
