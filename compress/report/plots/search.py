"""What a search has found: loss against cost, predicted beside found, and what was chosen by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from compress.report import searching, summary
from compress.report.plots.theme import ACCENT, BLUE, GREEN, GREY, ORANGE, SKY, safe, template
from compress.results import Results, Searched, SearchedPoint, VariantResult

if TYPE_CHECKING:
    from compress.seek import Frontier

SCORED = {"energy": "energy_joules", "seconds": "seconds", "dram_bytes": "dram_bytes", "macs": "macs"}
"""Where a hardware score has what a search minimises."""
TICKS = [step * 10**power for power in range(-4, 1) for step in (1, 2, 5)]
"""Shares of the original's cost that an axis may name."""
COLOURS = {4: BLUE, 8: SKY, searching.HALF: GREEN, searching.FLOAT: ORANGE}
"""Colours of weights of at most so many bits."""


def search_frontier(found: Searched | Frontier, results: Results | None = None) -> go.Figure:
    """Draw the noise at the outputs against the share of the original's cost, both as predicted and as found.

    Args:
        found: what a search has found.
        results: the run that it is part of; its variants that were written by hand stand beside the frontier.
    """
    searched = _searched(found)
    figure = go.Figure()
    _add_evaluated(figure, searched)
    _add_frontier(figure, searched)
    if results is not None:
        _add_by_hand(figure, searched, results)
    figure.update_layout(
        template=template(),
        title_text=f"What the search found on {safe(searched.hardware)}",
        height=460,
        hovermode="closest",
        xaxis={
            "title_text": f"{searching.cost(searched)}, share of the original's",
            "type": "log",
            "tickvals": TICKS,
            "ticktext": [f"{100 * tick:g}%" for tick in TICKS],
        },
        yaxis_title_text="SNR at the outputs, dB (higher is better)",
    )
    return figure


def choices_by_layer(found: Searched | Frontier) -> go.Figure:
    """Draw what each layer becomes in each variant: the colour is bits, the number the channels kept.

    Squares multiply integers, circles floats.
    """
    searched = _searched(found)
    named = searching.layers(searched.points)
    figure = go.Figure(layout={"template": template(), "hovermode": "closest"})
    cells = [
        (place, row, choice)
        for row, point in enumerate(searched.points)
        for place, choice in enumerate(searching.choices(point.plan, named))
    ]
    for bits in sorted({choice.bits for *_, choice in cells}):
        for in_integers in (False, True):
            chosen = [cell for cell in cells if (cell[2].bits, cell[2].in_integers) == (bits, in_integers)]
            if chosen:
                _add_cells(figure, chosen, named, searched.points)
    figure.update_layout(
        title_text="What was chosen by layer",
        height=150 + 34 * len(searched.points),
        xaxis={
            "tickvals": list(range(len(named))),
            "ticktext": [safe(name) for name in named],
            "range": [-0.6, len(named) - 0.4],
            "showgrid": False,
        },
        yaxis={
            "tickvals": list(range(len(searched.points))),
            "ticktext": [safe(point.name) for point in searched.points],
            "range": [len(searched.points) - 0.4, -0.6],
            "showgrid": False,
        },
    )
    return figure


def _searched(found: Searched | Frontier) -> Searched:
    return found if isinstance(found, Searched) else found.score()


def _add_cells(
    figure: go.Figure,
    chosen: Sequence[tuple[int, int, searching.Choice]],
    named: Sequence[str],
    points: Sequence[SearchedPoint],
) -> None:
    """Add the squares of all layers with the same bits and arithmetic."""
    choice = chosen[0][2]
    colour = next(colour for most, colour in COLOURS.items() if choice.bits <= most)
    bits = {searching.FLOAT: "float", searching.HALF: "float16"}.get(choice.bits, f"{choice.bits} bits")
    figure.add_scatter(
        x=[place for place, *_ in chosen],
        y=[row for _, row, _ in chosen],
        mode="markers+text",
        marker={
            "symbol": "square" if choice.in_integers else "circle",
            "size": 26,
            "color": colour,
            "opacity": 0.85,
        },
        text=["" if each.kept == 1 else f"{100 * each.kept:.0f}" for *_, each in chosen],
        textfont={"size": 11, "color": "#FFFFFF" if choice.bits <= 4 else "#10151B"},
        hovertext=[
            f"<b>{safe(named[place])}</b> in {safe(points[row].name)}<br>{each}"
            for place, row, each in chosen
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        name=f"{bits}, multiplies {'integers' if choice.in_integers else 'floats'}",
        cliponaxis=False,
    )


def _add_evaluated(figure: go.Figure, searched: Searched) -> None:
    points = list(_drawn(searched, searched.evaluated))
    figure.add_scatter(
        x=[_share(searched, point.found) for point in points],
        y=[searching.snr(point.found) for point in points],
        mode="markers",
        marker={"size": 5, "color": GREY},
        hoverinfo="skip",
        name="measured on the way",
    )


def _add_frontier(figure: go.Figure, searched: Searched) -> None:
    points = list(_drawn(searched, searched.points))
    found = [(_share(searched, each.found), searching.snr(each.found)) for each in points]
    predicted = [(_share(searched, each.predicted), searching.snr(each.predicted)) for each in points]
    words = {row.name: row for row in searching.rows(searched)}
    told = [_portrait(words[point.name]) for point in points]
    figure.add_scatter(
        x=[end for (one, _), (other, _) in zip(found, predicted, strict=True) for end in (one, other, None)],
        y=[end for (_, one), (_, other) in zip(found, predicted, strict=True) for end in (one, other, None)],
        mode="lines",
        line={"color": ACCENT, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    for name, places, mode, symbol in (
        ("predicted", predicted, "markers", "circle-open"),
        ("found", found, "lines+markers", "circle"),
    ):
        figure.add_scatter(
            x=[x for x, _ in places],
            y=[y for _, y in places],
            mode=mode,
            marker={"symbol": symbol, "size": 10, "color": ACCENT, "line": {"width": 2, "color": ACCENT}},
            line={"color": ACCENT, "width": 2},
            hovertext=told,
            hovertemplate="%{hovertext}<extra></extra>",
            name=name,
        )


def _add_by_hand(figure: go.Figure, searched: Searched, results: Results) -> None:
    """Add the other variants of the run, where their noise and the quantity are known."""
    reference = summary.original(results)
    made = {point.name for point in searched.points}
    places = []
    for variant in results.variants:
        share = _share_of(variant, reference, searched)
        close = variant.agreement.snr_db if variant.agreement else None
        if variant.name not in made and share and close is not None and math.isfinite(close):
            places.append((variant.name, share, close))
    if places:
        figure.add_scatter(
            x=[share for _, share, _ in places],
            y=[close for *_, close in places],
            mode="markers+text",
            marker={"symbol": "diamond", "size": 10, "color": ORANGE},
            text=[safe(name) for name, *_ in places],
            textposition="top center",
            cliponaxis=False,
            hovertemplate="<b>%{text}</b><br>%{y:.1f} dB at %{x:.1%}<extra></extra>",
            name="written by hand",
        )


def _share_of(variant: VariantResult, reference: VariantResult | None, searched: Searched) -> float | None:
    """Return a variant's share of the original's cost; None where a run does not score the quantity."""
    if reference is None:
        return None
    if searched.minimised == "file":
        return variant.weight_bytes / reference.weight_bytes if reference.weight_bytes else None
    field = SCORED.get(searched.minimised, "")
    ours, base = (getattr(each.hardware.get(searched.hardware), field, 0) for each in (variant, reference))
    return ours / base if ours and base else None


def _drawn(searched: Searched, points: Sequence[SearchedPoint]) -> Iterator[SearchedPoint]:
    """Yield the points that a logarithm can show: those with noise and with a cost."""
    for point in points:
        if all(each["loss"] > 0 and each[searched.minimised] > 0 for each in (point.found, point.predicted)):
            yield point


def _share(searched: Searched, numbers: dict[str, float]) -> float:
    return numbers[searched.minimised] / searched.original[searched.minimised]


def _portrait(row: searching.Row) -> str:
    lines = [
        f"<b>{safe(row.name)}</b>",
        f"found {row.found_loss}, {row.found_cost} ({row.share})",
        f"predicted {row.predicted_loss}, {row.predicted_cost}",
        *([f"{row.drop} points lost"] if row.drop else []),
        safe(row.chosen),
    ]
    return "<br>".join(lines)
