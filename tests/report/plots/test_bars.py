"""Stacked bars: they add up, and no layer is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compress.report import (
    dram_by_layer,
    energy_by_layer,
)
from compress.results import Results


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
