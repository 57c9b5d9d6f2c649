"""Rooflines: the roofs bound every layer."""

from __future__ import annotations

import pytest

from compress.report import (
    roofline,
)
from compress.results import Results


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
