"""Accuracy against energy: where the points, the bars of uncertainty and the front stand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from compress.report import (
    accuracy_vs_energy,
)
from compress.results import Agreement, Results


def points(figure: Any) -> dict[str, tuple[float, float]]:
    return {
        name: (x, y)
        for trace in figure.data
        if trace.customdata is not None
        for name, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }


def test_points_stand_at_metric_and_energy(results: Results) -> None:
    figure = accuracy_vs_energy(results, "eyeriss-v1")
    assert figure.layout.xaxis.title.text.endswith("(µJ)")
    drawn = points(figure)
    for variant in results.variants[:-1]:
        assert variant.metric is not None
        joules = variant.hardware["eyeriss-v1"].energy_joules
        assert drawn[variant.name] == pytest.approx((joules * 1e6, variant.metric.value))


def test_error_bars_span_the_estimate(results: Results) -> None:
    trace = next(t for t in accuracy_vs_energy(results, "cpu").data if t.name == "original")
    score = results.variants[0].hardware["cpu"]
    assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(score.energy_low * 1e6)
    assert trace.x[0] + trace.error_x.array[0] == pytest.approx(score.energy_high * 1e6)


def test_the_front_runs_through_the_pareto_optimal_in_order(results: Results) -> None:
    figure = accuracy_vs_energy(results, "eyeriss-v1")
    front = figure.data[0]
    drawn = points(figure)
    names = ("pruned-int8", "pruned", "half-energy", "original")
    assert list(zip(front.x, front.y, strict=True)) == [drawn[name] for name in names]


def test_without_a_metric_infinite_agreement_stands_above_the_rest(results: Results) -> None:
    variants = [variant.model_copy(update={"metric": None}) for variant in results.variants]
    figure = accuracy_vs_energy(results.model_copy(update={"variants": variants}), "cpu")
    drawn = points(figure)
    heights = {name: y for name, (_, y) in drawn.items()}
    assert max(heights, key=heights.__getitem__) == "original"
    assert math.isfinite(heights["original"])
    ticks = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    assert ticks["∞"] == heights["original"]


def test_labels_are_drawn_by_their_share_of_equal_ones(make_results: Callable[..., Results]) -> None:
    results = make_results(("original", "int8"), hardware=("cpu",))
    variants = [
        variant.model_copy(update={"metric": None, "agreement": Agreement(equal=share)})
        for variant, share in zip(results.variants, (1.0, 0.9), strict=True)
    ]
    figure = accuracy_vs_energy(results.model_copy(update={"variants": variants}), "cpu")
    assert {name: y for name, (_, y) in points(figure).items()} == {"original": 1.0, "int8": 0.9}
    assert figure.layout.yaxis.title.text == "share of equal outputs (higher is better)"


def test_a_wide_range_of_energies_is_logarithmic(make_results: Callable[..., Results]) -> None:
    results = make_results(("original", "int8"), hardware=("cpu",))
    far = results.variants[1].hardware["cpu"].model_copy(update={"energy_joules": 1.0, "energy_high": 1.0})
    variants = [results.variants[0], results.variants[1].model_copy(update={"hardware": {"cpu": far}})]
    figure = accuracy_vs_energy(results.model_copy(update={"variants": variants}), "cpu")
    assert figure.layout.xaxis.type == "log"
