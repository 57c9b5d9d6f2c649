"""Pictures of a replay."""

from __future__ import annotations

import numpy as np
import pytest

from compress.governor import Budget, Frontier, Option, Replay, Trace, replay
from compress.governor.budget import DAY
from compress.report.plots.governing import over_time, quality_vs_joules


@pytest.fixture(scope="module")
def found() -> Replay:
    frontier = Frontier.of([Option("<small>", 0.8, 1.0), Option("large", 0.9, 3.0)])
    return replay(Trace(np.arange(1000) * DAY / 1000, 0.0, DAY), frontier, Budget.parse("1500 J for 24 h"))


def test_every_request_is_drawn_once(found: Replay) -> None:
    bars = [trace for trace in over_time(found).data if trace.type == "bar"]
    assert {bar.name for bar in bars} == {"&lt;small&gt;", "large"}
    assert sum(sum(bar.y) for bar in bars) == found.requests


def test_the_charge_ends_where_the_replay_does(found: Replay) -> None:
    (line,) = [trace for trace in over_time(found).data if trace.type == "scatter"]
    assert line.y[-1] == pytest.approx(found.steps[-1].charge / 1e3, abs=1e-6)


def test_the_optimum_stands_above_all(found: Replay) -> None:
    heights = {trace.name: max(trace.y) for trace in quality_vs_joules(found).data}
    assert heights["offline optimum"] >= heights["governor"] > heights["one variant alone"]
