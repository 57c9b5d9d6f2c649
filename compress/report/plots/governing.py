"""A replay of the governor: which variant answered when, what was left, and what a joule had to buy."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from compress import units
from compress.governor import Course, Replay
from compress.report.plots.theme import (
    ACCENT,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    safe,
    template,
)

COLOURS = (SKY, GREEN, ORANGE, VERMILION, PINK, BLUE)
"""Colours of the variants, the cheapest first."""
UNANSWERED = "not answered"
BINS = 192
"""Points that a replay is drawn with at most."""


def over_time(found: Replay) -> go.Figure:
    """Draw requests by variant over the hours, and below them the joules that are left."""
    times = np.array([step.time for step in found.steps]) / 3600
    names = [*(course.name for course in found.fixed), UNANSWERED]
    chosen = np.array([names.index(str(step.option) if step.option else UNANSWERED) for step in found.steps])
    edges = np.linspace(times[0], max(times[-1], times[0] + 1e-6), min(BINS, len(times)) + 1)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    figure = go.Figure(layout={"template": template(), "title_text": "Over time", "height": 520})
    for place, name in enumerate(names):
        if not (chosen == place).any():
            continue
        counts = np.histogram(times[chosen == place], edges)[0]
        colour = GREY if name == UNANSWERED else COLOURS[place % len(COLOURS)]
        figure.add_bar(
            x=middles, y=counts.tolist(), name=safe(name), marker={"color": colour, "line_width": 0}
        )
    last = np.clip(np.searchsorted(times, edges[1:], "right") - 1, 0, None)
    charge = np.array([step.charge for step in found.steps])[last]
    scale, letter = units.prefix(float(charge.max(initial=0.0)))
    figure.add_scatter(
        x=edges[1:].tolist(),
        y=(charge / scale).tolist(),
        mode="lines",
        line={"color": ACCENT, "width": 2},
        name="joules left",
        yaxis="y2",
        showlegend=False,
    )
    figure.update_layout(
        barmode="stack",
        bargap=0,
        xaxis={"title_text": "hours since midnight of the first day", "anchor": "y2"},
        yaxis={"title_text": "requests", "domain": [0.42, 1.0]},
        yaxis2={"title_text": f"left ({letter}J)", "domain": [0.0, 0.34], "rangemode": "tozero"},
    )
    return figure


def quality_vs_joules(found: Replay) -> go.Figure:
    """Draw what came of the trace: the governor, each variant alone and the offline optimum."""
    figure = go.Figure(layout={"template": template(), "title_text": "What came of it", "height": 420})
    scale, letter = units.prefix(max(course.joules for course in (*found.fixed, found.governor)))
    groups: list[tuple[str, str, str, list[Course]]] = [
        ("one variant alone", "circle-open", GREY, list(found.fixed)),
        ("governor", "circle", ACCENT, [found.governor]),
        ("offline optimum", "x", VERMILION, [found.offline]),
    ]
    for name, symbol, colour, courses in groups:
        figure.add_scatter(
            x=[course.joules / scale for course in courses],
            y=[course.quality for course in courses],
            mode="markers+text",
            marker={"symbol": symbol, "size": 12, "color": colour},
            text=[safe(course.name) if course in found.fixed else "" for course in courses],
            textposition="bottom center",
            cliponaxis=False,
            name=name,
        )
    figure.update_layout(
        xaxis={"title_text": f"spent ({letter}J)", "rangemode": "tozero"},
        yaxis_title_text="mean over all requests (higher is better)",
    )
    return figure
