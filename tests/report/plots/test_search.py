"""What a search has found: each number stands where it belongs, and what was chosen in its colour."""

from __future__ import annotations

import pytest

from compress.report import choices_by_layer, search_frontier
from compress.report.plots.search import COLOURS
from compress.results import Results, Searched
from compress.seek import Frontier, Point


def test_predicted_stands_beside_found_and_the_variants_of_the_run_beside_both(
    results: Results, searched: Searched
) -> None:
    traces = {trace.name: trace for trace in search_frontier(searched, results).data if trace.name}
    found, predicted = traces["found"], traces["predicted"]
    assert list(found.x) == pytest.approx([0.3, 0.1])
    assert list(found.y) == pytest.approx([30, 20])
    assert list(predicted.x) == pytest.approx([0.294, 0.098])
    assert all(above > below for above, below in zip(predicted.y, found.y, strict=True))
    assert len(traces["measured on the way"].x) == 3, "what has no noise has no place on the axis"
    by_hand = traces["written by hand"]
    scores = {v.name: v.hardware["eyeriss-v1"].energy_joules for v in results.variants if v.hardware}
    shares = dict(zip(by_hand.text, by_hand.x, strict=True))
    assert shares["int8"] == pytest.approx(scores["int8"] / scores["original"])
    assert "original" not in shares and "search-2" not in shares


def test_what_a_run_does_not_score_is_not_compared(results: Results, searched: Searched) -> None:
    flash = {"loss": 0.01, "flash": 1.0}
    points = [each.model_copy(update={"found": flash, "predicted": flash}) for each in searched.points]
    other = searched.model_copy(
        update={"minimised": "flash", "original": {"flash": 4.0}, "points": points, "evaluated": points}
    )
    figure = search_frontier(other, results)
    assert "written by hand" not in {trace.name for trace in figure.data}
    assert set(next(trace for trace in figure.data if trace.name == "found").x) == {0.25}


def test_every_layer_has_the_colour_of_its_bits_and_the_number_of_its_channels(searched: Searched) -> None:
    figure = choices_by_layer(searched)
    assert list(figure.layout.xaxis.ticktext) == ["conv&lt;0&gt;", "conv&lt;1&gt;", "fc"]
    cells = {
        (x, y): (trace.marker.color, trace.marker.symbol, text)
        for trace in figure.data
        for x, y, text in zip(trace.x, trace.y, trace.text, strict=True)
    }
    assert len(cells) == 9
    assert cells[0, 1] == (COLOURS[8], "square", "")
    assert cells[1, 2] == (COLOURS[4], "circle", "50")
    assert cells[2, 1][0] == COLOURS[16] and cells[2, 2][0] == COLOURS[32]
    told = {text for trace in figure.data for text in trace.hovertext}
    assert (
        "<b>conv&lt;1&gt;</b> in search-3<br>4-bit weights, multiplies floats, keeps 50% of its channels"
        in told
    )


def test_a_frontier_is_drawn_as_the_results_of_its_run_are(searched: Searched) -> None:
    points = [Point(one.plan, one.passes, one.predicted, one.found, one.drop) for one in searched.points]
    frontier = Frontier(searched.minimised, "<mine>", searched.original, points, points)
    figure, drawn = (search_frontier(each).data[-1] for each in (frontier, searched))
    assert list(figure.x) == list(drawn.x) and list(figure.y) == list(drawn.y)
    page = frontier._repr_html_()
    assert "<td>2</td><td>30.8 dB</td><td>30.0 dB</td><td>235 µJ</td><td>240 µJ</td><td>30.0%</td>" in page
    assert page.count("<tr>") == 4 and "<caption>&lt;mine&gt;</caption>" in page
