"""Treemap: where the bytes of memory traffic go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress import units
from compress.report.plots.theme import BLUE, ORANGE, safe, template

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from compress.results import HardwareScore

COLOURS = {"weights": BLUE, "activations": ORANGE}
GAP = 0.04
"""Between the original and the variant, in parts of the wider one."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One rectangle, whose area is its bytes."""

    name: str
    kind: str
    size: float
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


def bytes_by_layer(
    score: HardwareScore, original: HardwareScore | None = None, *, most: int = 16
) -> go.Figure:
    """Draw DRAM traffic as tiles, one for a layer's weights and one for its activations.

    Args:
        score: the estimate that is shown.
        original: the estimate to hold it against, drawn to the same scale on the left; or None.
        most: tiles that are drawn of each; the smallest are summed in one of their kind.
    """
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": template(), "title_text": "Where the bytes go", "height": 420})
    shown = [("original", original)] if original is not None else []
    shown.append(("this variant", score))
    largest = max((each.dram_bytes for _, each in shown), default=0.0) or 1.0
    start, tiles, titles = 0.0, [], []
    for title, each in shown:
        width = each.dram_bytes / largest
        tiles += list(_squarified(_tiles(each, most), start, 0.0, width, 1.0))
        titles.append((start, f"{title}, {units.si(each.dram_bytes, 'B')}"))
        start += max(width, 0.2) + GAP
    for kind, colour in COLOURS.items():
        _add_tiles(figure, [tile for tile in tiles if tile.kind == kind], kind, colour)
    for x, text in titles:
        figure.add_annotation(x=x, y=1.02, text=text, showarrow=False, xanchor="left", yanchor="bottom")
    hidden = {"visible": False, "fixedrange": True}
    figure.update_layout(
        barmode="overlay",
        uniformtext={"minsize": 10, "mode": "hide"},
        xaxis={"range": [0, start], **hidden},
        yaxis={"range": [0, 1.1], **hidden},
    )
    return figure


def _tiles(score: HardwareScore, most: int) -> list[Tile]:
    """Return the tiles of an estimate, the largest first."""
    found = [
        Tile(layer.name, kind, size)
        for layer in score.layers
        for kind, size in (
            ("weights", layer.dram_weight_bytes),
            ("activations", layer.dram_bytes - layer.dram_weight_bytes),
        )
        if size > 0
    ]
    found.sort(key=lambda tile: -tile.size)
    rest = [
        Tile("other layers", kind, sum(t.size for t in found[most:] if t.kind == kind)) for kind in COLOURS
    ]
    return sorted(found[:most] + [tile for tile in rest if tile.size], key=lambda tile: -tile.size)


def _squarified(tiles: Sequence[Tile], x: float, y: float, width: float, height: float) -> Iterator[Tile]:
    """Yield the tiles with their places, as square as can be (Bruls, Huizing and van Wijk 2000).

    Rows are laid along the shorter side; a row takes tiles as long as its worst one becomes no longer.
    """
    left = list(tiles)
    while left:
        area = width * height / sum(tile.size for tile in left)
        side = min(width, height)
        count = 1
        while count < len(left) and _worst(left[: count + 1], area, side) <= _worst(left[:count], area, side):
            count += 1
        row, left = left[:count], left[count:]
        depth = sum(tile.size for tile in row) * area / side
        along = 0.0
        for tile in row:
            length = tile.size * area / depth
            if width >= height:
                yield Tile(tile.name, tile.kind, tile.size, x, y + along, depth, length)
            else:
                yield Tile(tile.name, tile.kind, tile.size, x + along, y, length, depth)
            along += length
        if width >= height:
            x, width = x + depth, width - depth
        else:
            y, height = y + depth, height - depth


def _worst(row: Sequence[Tile], area: float, side: float) -> float:
    """Return the largest ratio of sides in a row."""
    depth = sum(tile.size for tile in row) * area / side
    lengths = [tile.size * area / depth for tile in row]
    return max(max(length / depth, depth / length) for length in lengths)


def _add_tiles(figure: go.Figure, tiles: Sequence[Tile], kind: str, colour: str) -> None:
    """Add the rectangles of one kind as bars that stand where they are told to."""
    figure.add_bar(
        x=[tile.x + tile.width / 2 for tile in tiles],
        width=[tile.width for tile in tiles],
        y=[tile.height for tile in tiles],
        base=[tile.y for tile in tiles],
        marker={"color": colour, "line": {"color": "rgba(255,255,255,0.7)", "width": 1}},
        text=[safe(tile.name) for tile in tiles],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        customdata=[units.si(tile.size, "B") for tile in tiles],
        hovertemplate=f"<b>%{{text}}</b><br>{kind} %{{customdata}}<extra></extra>",
        name=kind,
    )
