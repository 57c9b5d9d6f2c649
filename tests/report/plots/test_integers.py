"""What integers mean layer by layer: every layer is drawn once, in the colour of what was chosen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from compress.changes import Effect
from compress.report import integers_by_layer
from compress.report.plots.integers import CHOICES

EFFECTS = {
    f"conv<{place}>": Effect(
        in_integers=place % 3 > 0,
        snr_db=20.0 + place,
        time_in_floats=0.02,
        time_in_integers=0.01 + 0.005 * place,
        why="" if place % 3 else "too noisy",
    )
    for place in range(7)
}


def test_every_layer_is_drawn_at_its_place_in_the_colour_of_the_choice() -> None:
    figure = integers_by_layer(EFFECTS)
    for kind, values in (
        ("scatter", [20 + place for place in range(7)]),
        ("bar", [1 - 0.5 * place for place in range(7)]),
    ):
        drawn: dict[int, float] = {}
        for trace in (each for each in figure.data if each.type == kind):
            (chosen,) = (each for each in CHOICES if CHOICES[each][0] == trace.name)
            assert trace.marker.color == CHOICES[chosen][1]
            assert all((place - 1) % 3 > 0 for place in trace.x) == chosen
            drawn |= dict(zip(trace.x, trace.y, strict=True))
        assert [drawn[place] for place in range(1, 8)] == pytest.approx(values)
    told = {text for trace in figure.data for text in trace.hovertext}
    assert "<b>conv&lt;0&gt;</b><br>left in float: too noisy; integers: 20 dB at the outputs, " in min(told)
    assert len(told) == 7


def test_what_is_not_known_has_no_panel() -> None:
    unheard = {name: replace(effect, snr_db=None) for name, effect in EFFECTS.items()}
    unknown = {"embedding": Effect(in_integers=False, why="used in another way")}
    timed = integers_by_layer(unheard | unknown)
    assert {trace.type for trace in timed.data} == {"bar"} and "yaxis2" not in timed.layout
    assert timed.layout.yaxis.title.text == "time won (%)" and timed.layout.xaxis.range[1] < 8
    assert {trace.name for trace in timed.data if trace.showlegend} == {"in integers", "left in float"}
    heard = integers_by_layer({name: replace(each, time_in_floats=None) for name, each in EFFECTS.items()})
    assert {trace.type for trace in heard.data} == {"scatter"}
    assert not integers_by_layer(unknown).data
    assert math.isfinite(integers_by_layer({}).layout.xaxis.range[1])
