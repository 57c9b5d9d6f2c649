"""Colours and type of every plot, for light and for dark pages.

The colours are Okabe and Ito's ("Color Universal Design", 2008), which people with any of the common
colour-vision deficiencies can tell apart, without the yellow that vanishes on white.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Collection, Sequence
from typing import Any

import plotly.graph_objects as go

from compress.results import HardwareScore

BLUE, SKY, GREEN, ORANGE, VERMILION, PINK = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
GREY = "#868E99"
"""Halfway between black and white: visible on both."""
ACCENT = "#2F81C7"
"""Marks what the eye should find first."""
INNERMOST = {"compute": BLUE, "vector": "#44AA99"}
OUTERMOST = {"dram": VERMILION, "link": PINK, "static": GREY, "package": GREY}
"""Components that look the same on all hardware."""
LEVELS = (SKY, GREEN, ORANGE, "#8C6BB1", "#B58900", "#7A4B3A")
"""Colours of the memories between compute and DRAM, from the inside out."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


def component_colours(names: Collection[str]) -> dict[str, str]:
    """Return a colour for each component of energy: cold near the arithmetic, warm far from it.

    Args:
        names: components, with the memories from the outside in, as profiles list them.

    Returns:
        Colours in the order of distance from the arithmetic.
    """
    between = [name for name in dict.fromkeys(names) if name not in INNERMOST | OUTERMOST]
    levels = dict(zip(reversed(between), itertools.cycle(LEVELS), strict=False))
    known = set(names)
    return {name: colour for name, colour in (INNERMOST | levels | OUTERMOST).items() if name in known}


def template(*, dark: bool = False) -> go.layout.Template:
    """Return the Plotly template that all figures use."""
    ink, faint, paper = ("#D7DCE2", "#30363F", "#15181D") if dark else ("#24292F", "#E4E7EB", "#FFFFFF")
    axis = {
        "gridcolor": faint,
        "linecolor": GREY,
        "zeroline": False,
        "ticks": "",
        "title": {"standoff": 12, "font": {"size": 13}},
        "automargin": True,
        "ticklabelstandoff": 4,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": ink},
            # At the top edge, which a legend of two rows does not reach.
            "title": {
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": 0.98,
                "yref": "container",
                "yanchor": "top",
                "font": {"size": 16},
            },
            "paper_bgcolor": paper,
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "title": {"text": ""},
            },
            "hoverlabel": {
                "align": "left",
                "bgcolor": paper,
                "bordercolor": GREY,
                "font": {"color": ink, "family": FONT},
            },
            "margin": {"l": 16, "r": 24, "t": 84, "b": 16},
            "barcornerradius": 2,
        }
    )


def whiskers(scores: Sequence[HardwareScore], scale: float) -> dict[str, Any]:
    """Return the 90 % interval of each energy as error bars; `scale` is the joules of one unit."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [(score.energy_high - score.energy_joules) / scale for score in scores],
        "arrayminus": [(score.energy_joules - score.energy_low) / scale for score in scores],
        "color": GREY,
        "thickness": 1.2,
        "width": 4,
    }


def safe(text: str) -> str:
    """Escape names given by a user, because Plotly draws text as a small subset of HTML."""
    return html.escape(text, quote=False)
