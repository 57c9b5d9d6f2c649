"""What is said of one result beside the others."""

import pytest

from compress.engine.ranking import compared, quality
from compress.passes import Fold
from compress.recipe import Budget, Variant
from compress.results import Agreement, HardwareScore, Metric, VariantResult


def result(
    name: str, value: float | None, joules: float, better: str = "higher", status: str = "done"
) -> VariantResult:
    score = HardwareScore(
        energy_joules=joules,
        energy_low=joules,
        energy_high=joules,
        energy={},
        dram_bytes=0,
        bytes_moved={},
        macs=1,
        seconds=1,
    )
    metric = None if value is None else Metric(name="m", value=value, delta=0, better=better)  # type: ignore[arg-type]
    return VariantResult(
        name=name,
        passes=[],
        status=status,
        metric=metric,
        hardware={"chip": score},
        file_bytes=100,  # type: ignore[arg-type]
    )


def variants(*results: VariantResult, budget: Budget | None = None) -> list[Variant]:
    passes = [(), *([(Fold(),)] * (len(results) - 1))]
    return [
        Variant(name=one.name, passes=each, budget=budget if each else None)
        for one, each in zip(results, passes, strict=True)
    ]


def test_differences_from_the_original() -> None:
    results = [result("original", 0.9, 2), result("a", 0.8, 1)]
    original, other = compared(variants(*results), results)
    assert original.metric and original.metric.delta == 0
    assert other.metric and round(other.metric.delta, 9) == -0.1


def test_the_front_drops_what_another_beats_and_keeps_equals() -> None:
    results = [result("original", 0.9, 4), result("a", 0.8, 2), result("b", 0.7, 3), result("c", 0.8, 2)]
    ranked = compared(variants(*results), results)
    assert [one.name for one in ranked if one.pareto == ["chip"]] == ["original", "a", "c"]
    lower = [
        result(one.name, one.metric and 1 - one.metric.value, j, "lower")
        for one, j in zip(results, (4, 2, 3, 2), strict=True)
    ]
    assert [one.pareto for one in compared(variants(*lower), lower)] == [one.pareto for one in ranked]


def test_a_failed_variant_is_on_no_front_and_misses_no_limit() -> None:
    results = [result("original", 0.9, 4), result("broken", 1.0, 1, status="failed"), result("a", 0.9, 5)]
    tight = Budget.model_validate({"file": "1 B"})
    original, broken, other = compared(variants(*results, budget=tight), results)
    assert (original.pareto, broken.pareto, other.pareto) == (["chip"], [], [])
    assert broken.limits_missed == [] and len(other.limits_missed) == 1


def test_without_a_metric_agreement_counts() -> None:
    assert quality(result("a", None, 1)) == 0
    close = result("a", None, 1).model_copy(update={"agreement": Agreement(snr_db=40, cosine=1)})
    assert quality(close) == 40
    labels = Agreement(snr_db=40, cosine=1, equal=0.95)
    assert quality(close.model_copy(update={"agreement": labels})) == pytest.approx(10)
    assert quality(result("a", 0.2, 1, "lower")) == -0.2


def test_what_cannot_be_compared_is_on_no_front() -> None:
    unknown = Agreement(not_comparable={"boxes": "shape (3, 4) where the original's has (2, 4)"})
    close = [Agreement(equal=1.0), Agreement(equal=0.9), unknown, Agreement(equal=0.8)]
    results = [
        result(name, None, joules).model_copy(update={"agreement": each})
        for name, joules, each in zip(("original", "a", "b", "c"), (4, 2, 1, 3), close, strict=True)
    ]
    assert [one.name for one in compared(variants(*results), results) if one.pareto] == ["original", "a"]
