"""Treemap: where the bytes of memory traffic go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from compress import units
from compress.report.plots.theme import BLUE, ORANGE, safe, template
from compress.results import HardwareScore

COLOURS = {"weights": BLUE, "activations": ORANGE}
GAP = 0.03
"""Gap between the original and the variant, as a fraction of the figure's width."""


@dataclass(frozen=True, slots=True)
class _Tile:
    name: str
    kind: str
    size: float


def bytes_by_layer(
    score: HardwareScore, original: HardwareScore | None = None, *, most: int = 16
) -> go.Figure:
    """Draw DRAM traffic as tiles: weights and activations, and in them one tile for each layer.

    Args:
        score: the estimate that is shown.
        original: the estimate to compare with, drawn to the same scale on the left; or None.
        most: tiles that are drawn of each; the smallest are summed in one tile of their kind.
    """
    figure = go.Figure(layout={"template": template(), "title_text": "Where the bytes go", "height": 420})
    shown = [("original", original)] if original is not None else []
    shown.append(("this variant", score))
    # Both maps are equally high, so areas have one scale if the widths are in the ratio of the bytes.
    wide = (1 - GAP * (len(shown) - 1)) / (sum(each.dram_bytes for _, each in shown) or 1.0)
    start = 0.0
    for title, each in shown:
        end = start + wide * each.dram_bytes
        _add_map(figure, _tiles(each, most), (start, min(end, 1.0)))
        # In the empty head of the map. The one on the right may be narrower than its title, which then
        # reaches to the left.
        side = "left" if start == 0 else "right"
        figure.add_annotation(
            x=0 if side == "left" else 1,
            y=1,
            xanchor=side,
            yanchor="top",
            borderpad=0,
            text=f"{title}, {units.si(each.dram_bytes, 'B')}",
            showarrow=False,
        )
        start = end + GAP
    # Layers have the colour of their kind.
    figure.update_layout(
        treemapcolorway=list(COLOURS.values()), uniformtext={"minsize": 9, "mode": "hide"}, showlegend=False
    )
    return figure


def _tiles(score: HardwareScore, most: int) -> list[_Tile]:
    """Return the tiles of an estimate, the largest first."""
    found = [
        _Tile(layer.name, kind, size)
        for layer in score.layers
        for kind, size in (
            ("weights", layer.dram_weight_bytes),
            ("activations", layer.dram_bytes - layer.dram_weight_bytes),
        )
        if size > 0
    ]
    found.sort(key=lambda tile: -tile.size)
    kept = found[:most]
    for kind in COLOURS:
        rest = sum(tile.size for tile in found[most:] if tile.kind == kind)
        if rest:
            kept.append(_Tile("other layers", kind, rest))
    return kept


def _add_map(figure: go.Figure, tiles: Sequence[_Tile], domain: tuple[float, float]) -> None:
    """Add one map: the kinds of bytes, and in each the layers."""
    kinds = {kind: sum(tile.size for tile in tiles if tile.kind == kind) for kind in COLOURS}
    sizes = [*kinds.values(), *(tile.size for tile in tiles)]
    figure.add_treemap(
        ids=[*kinds, *(f"{tile.kind} {place}" for place, tile in enumerate(tiles))],
        parents=[*([""] * len(kinds)), *(tile.kind for tile in tiles)],
        labels=[*kinds, *(safe(tile.name) for tile in tiles)],
        values=sizes,
        text=[units.si(size, "B") for size in sizes],
        branchvalues="total",
        textinfo="label",
        hovertemplate="<b>%{label}</b><br>%{text}<extra></extra>",
        marker={
            "depthfade": False,
            "line": {"color": "rgba(255,255,255,0.7)", "width": 1},
            "pad": {"t": 18, "l": 0, "r": 0, "b": 0},
        },
        pathbar_visible=False,
        tiling_pad=0,
        domain_x=domain,
    )
