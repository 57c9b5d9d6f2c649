from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from compress.report import (
    accuracy_vs_energy,
    bytes_by_layer,
    dram_by_layer,
    energy_by_component,
    energy_by_layer,
    roofline,
)
from compress.report.plots.theme import component_colours
from compress.results import Results


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


def test_tiles_are_as_large_as_their_bytes(results: Results) -> None:
    before, after = (results.variants[index].hardware["cpu"] for index in (0, 1))
    figure = bytes_by_layer(after, before, most=5)
    areas = {
        trace.name: sum(w * h for w, h in zip(trace.width, trace.y, strict=True)) * before.dram_bytes
        for trace in figure.data
    }
    total = before.dram_bytes + after.dram_bytes
    weights = sum(layer.dram_weight_bytes for each in (before, after) for layer in each.layers)
    assert areas == pytest.approx({"weights": weights, "activations": total - weights})
    assert sum(name == "other layers" for trace in figure.data for name in trace.text) == 4


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


def test_a_wide_range_of_energies_is_logarithmic(make_results: Callable[..., Results]) -> None:
    results = make_results(("original", "int8"), hardware=("cpu",))
    far = results.variants[1].hardware["cpu"].model_copy(update={"energy_joules": 1.0, "energy_high": 1.0})
    variants = [results.variants[0], results.variants[1].model_copy(update={"hardware": {"cpu": far}})]
    figure = accuracy_vs_energy(results.model_copy(update={"variants": variants}), "cpu")
    assert figure.layout.xaxis.type == "log"


def test_names_cannot_be_markup(results: Results) -> None:
    variants = [results.variants[0].model_copy(update={"name": "<a href='x'>y</a>"})]
    score = results.variants[0].hardware["cpu"]
    layer = score.layers[0].model_copy(update={"name": "<b>bold</b>"})
    for figure in (
        accuracy_vs_energy(results.model_copy(update={"variants": variants}), "cpu"),
        energy_by_component(results.model_copy(update={"variants": variants}), "cpu"),
        energy_by_layer(score.model_copy(update={"layers": [layer]})),
        roofline(score.model_copy(update={"layers": [layer]})),
    ):
        shown = [
            each
            for trace in figure.data
            for texts in (getattr(trace, "text", None), getattr(trace, "hovertext", None))
            for each in texts or ()
        ]
        shown += figure.layout.yaxis.ticktext or ()
        assert any("&lt;" in each for each in shown)
        assert not any("<a" in each or "<b>bold" in each for each in shown)


def test_bars_of_a_layer_add_up_to_its_energy(results: Results) -> None:
    ours, theirs = results.variants[1].hardware["tpu-v4i"], results.variants[0].hardware["tpu-v4i"]
    figure = energy_by_layer(ours, theirs)
    assert figure.layout.xaxis.title.text == "energy (µJ)"
    bars = [trace for trace in figure.data if trace.type == "bar"]
    for score, opacity in ((ours, 1.0), (theirs, 0.45)):
        mine = [trace for trace in bars if trace.opacity == opacity]
        assert [trace.name for trace in mine] == ["compute", "vmem", "cmem", "dram", "static"]
        assert len({trace.y for trace in mine}) == 1
        totals = [sum(trace.x[row] for trace in mine) for row in range(12)]
        assert totals == pytest.approx([sum(layer.energy.values()) * 1e6 for layer in score.layers])


def test_many_layers_are_folded_without_losing_energy(make_results: Callable[..., Results]) -> None:
    score = make_results(("original",), layers=60).variants[0].hardware["cpu"]
    figure = energy_by_layer(score, most=10)
    assert len(figure.layout.yaxis.ticktext) == 11
    assert figure.layout.yaxis.ticktext[-1] == "50 other layers"
    drawn = sum(sum(trace.x) for trace in figure.data if trace.type == "bar")
    assert drawn == pytest.approx(score.energy_joules * 1e3)


def test_a_layer_that_only_one_side_has_keeps_its_place(results: Results) -> None:
    theirs = results.variants[0].hardware["cpu"]
    fused = theirs.layers[1].model_copy(update={"name": "fused"})
    ours = theirs.model_copy(update={"layers": [theirs.layers[0], fused, *theirs.layers[2:]]})
    names = [layer.name for layer in theirs.layers]
    ticks = dram_by_layer(ours, theirs).layout.yaxis.ticktext
    assert list(ticks) == [names[0], "fused", *names[1:]]


def test_roofs_bound_every_layer(results: Results) -> None:
    ours, theirs = results.variants[3].hardware["cpu"], results.variants[0].hardware["cpu"]
    roofs, *layers = roofline(ours, theirs).data
    _, ridge, _ = roofs.x
    slope = roofs.y[0] / roofs.x[0]
    assert roofs.y[1] == pytest.approx(ridge * slope)
    assert sum(len(trace.x) for trace in layers) == 24
    for trace in layers:
        for x, y in zip(trace.x, trace.y, strict=True):
            assert y <= min(x * slope, roofs.y[2]) * (1 + 1e-9)


def test_a_score_without_layers_draws_an_empty_roofline(results: Results) -> None:
    score = results.variants[0].hardware["cpu"].model_copy(update={"layers": []})
    assert not any(len(trace.x or ()) for trace in roofline(score).data)


def test_colours_are_distinct_and_fixed_for_what_all_hardware_has() -> None:
    names = ["compute", "vector", "dram", "l3", "l2", "l1", "buffer", "link", "static"]
    colours = component_colours(names)
    assert len(set(colours.values())) == len(names)
    assert list(colours)[:3] == ["compute", "vector", "buffer"]
    assert component_colours(["dram", "registers"])["dram"] == colours["dram"]


def test_importing_the_report_loads_no_plotly() -> None:
    code = "import sys, compress.report; print({'plotly', 'jinja2', 'rich', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
