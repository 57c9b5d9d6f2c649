"""Roofline: what limits each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from compress import units
from compress.report.plots.theme import GREY, component_colours, safe, template
from compress.results import HardwareScore, LayerScore


def roofline(score: HardwareScore, original: HardwareScore | None = None) -> go.Figure:
    """Draw each layer's rate of work against its work per byte of DRAM.

    The roofs are the highest rates that any layer reaches in the estimate, not a data sheet's.
    Layers without multiplications, traffic or time are left out.
    """
    figure = go.Figure(layout={"template": template(), "title_text": "Roofline", "height": 420})
    every = [layer for each in (original, score) if each for layer in _timed(each)]
    if every:
        peak = max(layer.macs / layer.seconds for layer in every)
        bandwidth = max(layer.dram_bytes / layer.seconds for layer in every)
        intensities = [layer.macs / layer.dram_bytes for layer in every]
        ridge = peak / bandwidth
        low, high = min(*intensities, ridge) / 2, max(*intensities, ridge) * 2
        figure.add_scatter(
            x=[low, ridge, high],
            y=[low * bandwidth, peak, peak],
            mode="lines",
            line={"color": GREY, "width": 2},
            name=f"roofs: {units.si(peak, 'MAC/s')}, {units.si(bandwidth, 'B/s')}",
            hoverinfo="skip",
        )
    if original is not None:
        _add_layers(figure, _timed(original), "original", {"symbol": "circle-open", "color": GREY, "size": 9})
    bounds = dict.fromkeys(layer.bound for layer in _timed(score))
    colours = component_colours([*score.energy, *bounds])
    for bound in bounds:
        limited = [layer for layer in _timed(score) if layer.bound == bound]
        _add_layers(figure, limited, f"limited by {bound}", {"color": colours[bound], "size": 10})
    axis = {"type": "log", "exponentformat": "SI", "dtick": 1}
    figure.update_xaxes(title_text="multiplications a byte of DRAM traffic (MAC/B)", **axis)
    figure.update_yaxes(title_text="rate (MAC/s)", **axis)
    return figure


def _timed(score: HardwareScore) -> list[LayerScore]:
    return [layer for layer in score.layers if layer.macs > 0 and layer.dram_bytes > 0 and layer.seconds > 0]


def _add_layers(figure: go.Figure, layers: Sequence[LayerScore], name: str, marker: dict[str, Any]) -> None:
    figure.add_scatter(
        x=[layer.macs / layer.dram_bytes for layer in layers],
        y=[layer.macs / layer.seconds for layer in layers],
        mode="markers",
        marker=marker,
        name=safe(name),
        text=[safe(layer.name) for layer in layers],
        hovertemplate="<b>%{text}</b><br>%{fullData.name}<br>%{x:.3~g} MAC/B, %{y:.3s}MAC/s<extra></extra>",
    )
