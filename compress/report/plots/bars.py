"""Stacked bars: where the energy and the bytes go, by variant and by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from compress import units
from compress.report import summary
from compress.report.plots.theme import component_colours, safe, template, whiskers
from compress.results import HardwareScore, LayerScore, Results

Parts = dict[str, float]


def energy_by_component(results: Results, hardware: str) -> go.Figure:
    """Draw every variant's energy on one profile as a bar stacked by component, with its low and high end."""
    shown = [variant for variant in results.variants if hardware in variant.hardware]
    scores = [variant.hardware[hardware] for variant in shown]
    scale, letter = units.prefix(max((score.energy_high for score in scores), default=0.0))
    reference = summary.original(results)
    base = reference.hardware[hardware].energy_joules if reference and hardware in reference.hardware else 0.0
    rows = [float(row) for row in range(len(shown))]
    figure = _empty()
    _add_stack(figure, [score.energy for score in scores], rows, scale, width=0.6)
    _add_bar_ends(
        figure,
        [score.energy_high / scale for score in scores],
        rows,
        [units.ratio(s.energy_joules, base) or units.si(s.energy_joules, "J") for s in scores],
        [_parts_text(v.name, v.hardware[hardware].energy, "J") for v in shown],
    )
    figure.add_scatter(
        x=[score.energy_joules / scale for score in scores],
        y=rows,
        error_x=whiskers(scores, scale),
        mode="markers",
        marker_opacity=0,
        showlegend=False,
        hoverinfo="skip",
    )
    longest = max((score.energy_high for score in scores), default=0.0) / scale
    _set_rows(figure, [variant.name for variant in shown], f"energy of one inference ({letter}J)", longest)
    figure.update_layout(title_text=f"Where the energy goes on {safe(hardware)}")
    return figure


def energy_by_layer(
    score: HardwareScore, original: HardwareScore | None = None, *, most: int = 24
) -> go.Figure:
    """Draw the energy of each layer as a bar stacked by component, in the order of the network.

    Args:
        score: the estimate whose layers are shown.
        original: the estimate to compare with, drawn as paler bars above; or None.
        most: layers that are drawn; those that cost least are summed in one last row.
    """
    figure = _layers(score, original, most, "J", "energy", lambda layer: layer.energy)
    figure.update_layout(title_text="Energy by layer and component")
    return figure


def dram_by_layer(
    score: HardwareScore, original: HardwareScore | None = None, *, most: int = 24
) -> go.Figure:
    """Draw the bytes that each layer moves to and from DRAM; arguments as for `energy_by_layer`."""
    figure = _layers(score, original, most, "B", "DRAM traffic", lambda layer: {"dram": layer.dram_bytes})
    figure.update_layout(title_text="DRAM traffic by layer", showlegend=False)
    return figure


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    ours: Parts
    theirs: Parts

    @property
    def extent(self) -> float:
        return max(sum(self.ours.values()), sum(self.theirs.values()))


def _layers(
    score: HardwareScore,
    original: HardwareScore | None,
    most: int,
    unit: str,
    what: str,
    parts: Callable[[LayerScore], Parts],
) -> go.Figure:
    rows = _folded(_matched(score, original, parts), most)
    longest = max((row.extent for row in rows), default=0.0)
    scale, letter = units.prefix(longest, whole=unit == "B")
    figure = _empty()
    places = [float(row) for row in range(len(rows))]
    shift, width = (0.2, 0.36) if original is not None else (0.0, 0.64)
    if original is not None:
        above = [place - shift for place in places]
        _add_stack(figure, [row.theirs for row in rows], above, scale, width=width, opacity=0.45)
    places = [place + shift for place in places]
    _add_stack(figure, [row.ours for row in rows], places, scale, width=width)
    _add_bar_ends(
        figure,
        [sum(row.ours.values()) / scale for row in rows],
        places,
        [_end(row, unit) for row in rows],
        [_parts_text(row.name, row.ours, unit, row.theirs) for row in rows],
    )
    _set_rows(figure, [row.name for row in rows], f"{what} ({letter}{unit})", longest / scale)
    return figure


def _end(row: _Row, unit: str) -> str:
    ours, theirs = sum(row.ours.values()), sum(row.theirs.values())
    return units.ratio(ours, theirs) or (units.si(ours, unit) if ours else "")


def _matched(
    score: HardwareScore, original: HardwareScore | None, parts: Callable[[LayerScore], Parts]
) -> list[_Row]:
    """Pair layers by name, in the order of the network; a layer that is new follows its predecessor."""
    ours, theirs = _by_name(score.layers, parts), _by_name(original.layers if original else [], parts)
    order = list(theirs)
    previous = None
    for name in ours:
        if name not in theirs:
            order.insert(order.index(previous) + 1 if previous is not None else 0, name)
        previous = name
    return [_Row(name, ours.get(name, {}), theirs.get(name, {})) for name in order]


def _by_name(layers: Sequence[LayerScore], parts: Callable[[LayerScore], Parts]) -> dict[str, Parts]:
    found: dict[str, Parts] = {}
    for layer in layers:
        found[layer.name] = _sum([found.get(layer.name, {}), parts(layer)])
    return found


def _folded(rows: list[_Row], most: int) -> list[_Row]:
    """Keep the `most` rows of largest extent, in their order, and sum the others in a last one."""
    if len(rows) <= most:
        return rows
    kept = set(sorted(range(len(rows)), key=lambda index: -rows[index].extent)[:most])
    others = [row for index, row in enumerate(rows) if index not in kept]
    rest = _Row(
        name=f"{len(others)} other layers",
        ours=_sum([row.ours for row in others]),
        theirs=_sum([row.theirs for row in others]),
    )
    return [row for index, row in enumerate(rows) if index in kept] + [rest]


def _sum(parts: Sequence[Parts]) -> Parts:
    names = dict.fromkeys(name for each in parts for name in each)
    return {name: sum(each.get(name, 0.0) for each in parts) for name in names}


def _empty() -> go.Figure:
    return go.Figure(layout={"template": template(), "barmode": "stack", "hovermode": "y"})


def _add_stack(
    figure: go.Figure,
    stacks: Sequence[Parts],
    places: Sequence[float],
    scale: float,
    *,
    width: float,
    opacity: float = 1.0,
) -> None:
    names = dict.fromkeys(name for stack in stacks for name in stack)
    for name, colour in component_colours(names).items():
        figure.add_bar(
            x=[stack.get(name, 0.0) / scale for stack in stacks],
            y=places,
            orientation="h",
            width=width,
            marker_color=colour,
            opacity=opacity,
            name=safe(name),
            legendgroup=name,
            showlegend=opacity == 1.0,
            hoverinfo="skip",
        )


def _add_bar_ends(
    figure: go.Figure,
    ends: Sequence[float],
    places: Sequence[float],
    texts: Sequence[str],
    hovers: Sequence[str],
) -> None:
    figure.add_scatter(
        x=ends,
        y=places,
        mode="text",
        text=[f" {text}" for text in texts],
        textposition="middle right",
        textfont_size=11,
        cliponaxis=False,
        hovertext=hovers,
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )


def _parts_text(name: str, ours: Parts, unit: str, theirs: Parts | None = None) -> str:
    """Return the values of a bar in words, those of the original in brackets."""

    def line(value: float, before: float) -> str:
        return units.si(value, unit) + (f" (original {units.si(before, unit)})" if theirs else "")

    theirs = theirs or {}
    lines = [f"<b>{safe(name)}</b>", line(sum(ours.values()), sum(theirs.values()))]
    names = list(component_colours([*ours, *theirs]))
    if len(names) > 1:
        lines += [f"{safe(part)} {line(ours.get(part, 0.0), theirs.get(part, 0.0))}" for part in names]
    return "<br>".join(lines)


def _set_rows(figure: go.Figure, names: Sequence[str], title: str, longest: float) -> None:
    figure.update_layout(
        height=132 + 30 * len(names),
        # The number at the end of the longest bar needs room.
        xaxis={"title_text": title, "range": [0, 1.12 * longest or 1.0]},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": [safe(short) for short in _short(names)],
            "range": [len(names) - 0.4, -0.6],
            "showgrid": False,
        },
    )


def _short(names: Sequence[str], longest: int = 26) -> list[str]:
    """Cut the middle out of long names: the beginning says which block, the end says what it is."""
    keep = longest // 2
    return [name if len(name) <= longest else f"{name[: keep - 1]}…{name[-keep:]}" for name in names]
