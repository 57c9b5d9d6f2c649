"""What integers mean layer by layer: the noise at the outputs and the time, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from compress.changes import Effect
from compress.report.plots.theme import BLUE, GREY, ORANGE, safe, template

CHOICES = {True: ("in integers", BLUE, "circle"), False: ("left in float", ORANGE, "diamond-open")}
"""Name, colour and symbol of what was chosen, by whether a layer multiplies integers."""


def integers_by_layer(effects: Mapping[str, Effect]) -> go.Figure:
    """Draw what integers mean in each layer, in the order of the network.

    Above is the signal-to-noise ratio at the outputs if the layer alone is in integers, below it the time
    they win, both coloured by what was chosen. Layers and panels of which nothing was measured are left out.

    Args:
        effects: by the layer's name, as a summary of a pass has them.
    """
    effects = {layer: effect for layer, effect in effects.items() if effect.is_measured}
    heard = any(effect.snr_db is not None for effect in effects.values())
    timed = any(effect.time_won is not None for effect in effects.values())
    figure = go.Figure(layout={"template": template(), "barmode": "overlay", "hovermode": "closest"})
    for in_integers, (name, colour, symbol) in CHOICES.items():
        places = [
            place for place, effect in enumerate(effects.values(), 1) if effect.in_integers == in_integers
        ]
        chosen = {layer: effect for layer, effect in effects.items() if effect.in_integers == in_integers}
        shared = {"x": places, "name": name, "legendgroup": name, **_hover(chosen)}
        if heard and places:
            figure.add_scatter(
                **shared,
                y=[effect.snr_db for effect in chosen.values()],
                mode="markers",
                cliponaxis=False,
                marker={"symbol": symbol, "size": 8, "color": colour, "line": {"width": 2, "color": colour}},
            )
        if timed and places:
            figure.add_bar(
                **shared,
                y=[None if effect.time_won is None else 100 * effect.time_won for effect in chosen.values()],
                yaxis="y2" if heard else "y",
                marker_color=colour,
                showlegend=not heard,
            )
    _set_axes(figure, len(effects), heard, timed)
    return figure


def _hover(chosen: Mapping[str, Effect]) -> dict[str, object]:
    texts = [f"<b>{safe(layer)}</b><br>{safe(str(effect))}" for layer, effect in chosen.items()]
    return {"hovertext": texts, "hovertemplate": "%{hovertext}<extra></extra>"}


def _set_axes(figure: go.Figure, count: int, heard: bool, timed: bool) -> None:
    noise = {"title_text": "SNR at the outputs (dB)"}
    time = {"title_text": "time won (%)", "zeroline": True, "zerolinecolor": GREY}
    figure.update_layout(
        title_text="What integers mean layer by layer",
        height=460 if heard and timed else 300,
        xaxis={
            "title_text": "layer, in the order of the network",
            "range": [0.4, count + 0.6],
            "tickformat": "d",
        },
        yaxis=noise if heard else time,
    )
    if heard and timed:
        figure.update_layout(
            xaxis_anchor="y2", yaxis_domain=[0.45, 1], yaxis2={**time, "domain": [0, 0.36], "anchor": "x"}
        )
