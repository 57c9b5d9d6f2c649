"""Options, and the few that are worth a joule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import InputError
from compress.governor import Frontier, Option, of_run
from compress.results import Agreement, Results


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-6, 1e3)), min_size=1, max_size=12))
def test_no_option_lies_above_the_hull(points: list[tuple[float, float]]) -> None:
    frontier = Frontier.of(Option(str(place), *point) for place, point in enumerate(points))
    joules = [each.joules for each in frontier.options]
    quality = [each.quality for each in frontier.options]
    assert joules == sorted(joules)
    assert list(frontier.slopes) == sorted(frontier.slopes, reverse=True)
    for accuracy, cost in points:
        if cost >= joules[0]:
            assert accuracy <= np.interp(cost, joules, quality) + 1e-9


def test_the_deadline_decides_first() -> None:
    options = [Option("slow", 0.9, 2.0, 0.5), Option("fast", 0.8, 1.0, 0.01)]
    assert [each.name for each in Frontier.of(options, deadline_seconds=0.1).options] == ["fast"]
    with pytest.raises(InputError, match=r"deadline of 5\.00 ms: the fastest, fast, takes 10\.0 ms"):
        Frontier.of(options, deadline_seconds=0.005)


def test_options_without_energy_are_refused() -> None:
    with pytest.raises(InputError, match="free: its energy must be above 0"):
        Frontier.of([Option("free", 0.5, 0.0)])
    with pytest.raises(InputError, match="no variants"):
        Frontier.of([])


def test_a_run_is_read(run_folder: Path) -> None:
    family = of_run(run_folder)
    assert [(each.name, each.quality, each.joules) for each in family.options] == [
        ("tiny", 0.7, 1.0),
        ("small", 0.8, 2.0),
        ("large", 0.9, 8.0),
    ]
    assert family.options[0].path == run_folder / "tiny.onnx"
    assert (family.unanswered, family.measure) == (0, "accuracy")
    with pytest.raises(InputError, match="no score on hardware 'stm32'; did you mean 'stm32u575'"):
        of_run(run_folder, "stm32")
    with pytest.raises(InputError, match=r"results\.json"):
        of_run(run_folder / "nowhere")


def test_where_lower_is_better_no_answer_is_worse_than_any(run_folder: Path) -> None:
    results = Results.load(run_folder / "results.json")
    turned = [
        each.model_copy(update={"metric": each.metric and each.metric.model_copy(update={"better": "lower"})})
        for each in results.variants
    ]
    results.model_copy(update={"variants": turned}).save(run_folder / "results.json")
    family = of_run(run_folder)
    assert [each.quality for each in family.options] == [-0.7, -0.8, -0.9]
    assert (family.unanswered, family.measure) == (-1.8, "−accuracy")


def test_without_a_metric_the_agreement_ranks(run_folder: Path) -> None:
    results = Results.load(run_folder / "results.json")
    close = [
        each.model_copy(update={"metric": None, "agreement": Agreement(top1=1 - place / 10)})
        for place, each in enumerate(results.variants)
    ]
    results.model_copy(update={"variants": close}).save(run_folder / "results.json")
    assert of_run(run_folder).measure == "agreement (top1)"
    assert [each.quality for each in of_run(run_folder).options] == [1.0, 0.9, 0.8]
    nothing = [each.model_copy(update={"metric": None}) for each in results.variants]
    results.model_copy(update={"variants": nothing}).save(run_folder / "results.json")
    with pytest.raises(InputError, match="neither a metric nor"):
        of_run(run_folder)


def test_operating_points_are_options_of_their_own(run_folder: Path) -> None:
    results = Results.load(run_folder / "results.json")
    moved = [
        each.model_copy(update={"hardware": {"gap9": each.hardware["stm32u575"]}})
        for each in results.variants
    ]
    results.model_copy(update={"variants": moved}).save(run_folder / "results.json")
    points = [each for each in of_run(run_folder).options if each.name == "tiny"]
    assert len({each.point for each in points}) == len(points) > 1
    fast, slow = min(points, key=lambda each: each.seconds), max(points, key=lambda each: each.seconds)
    assert fast.joules > slow.joules
    assert any(each.joules == pytest.approx(1.0) for each in points)
    assert str(fast) == f"tiny at {fast.point}"
