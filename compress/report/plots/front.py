"""Accuracy against energy: every variant a point, the Pareto front a line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from compress import units
from compress.report import summary
from compress.report.plots.theme import ACCENT, GREY, safe, template, whiskers
from compress.results import Results, VariantResult

LABEL_SIDES = ("top center", "bottom center", "middle right", "middle left")


def accuracy_vs_energy(results: Results, hardware: str) -> go.Figure:
    """Draw every variant by its metric and its energy on one profile, with the Pareto front.

    Error bars are 90 % intervals of the estimate. Without a metric the agreement with
    the original stands in its place, in dB, or as the share of equal labels. The ``customdata`` of a
    point is the name of its variant.
    """
    quality, better, value = _vertical([v for v in results.variants if hardware in v.hardware])
    known = [
        (v, height) for v in results.variants if hardware in v.hardware and (height := value(v)) is not None
    ]
    known.sort(key=lambda pair: pair[0].hardware[hardware].energy_joules)
    shown = [variant for variant, _ in known]
    scale, letter = units.prefix(max((v.hardware[hardware].energy_joules for v in shown), default=0.0))
    x = [variant.hardware[hardware].energy_joules / scale for variant in shown]
    y, ticks = _finite([height for _, height in known])
    logarithmic = bool(x) and min(x) > 0 and max(x) > 30 * min(x)
    figure = go.Figure()
    _add_front(figure, [(x[i], y[i]) for i, v in enumerate(shown) if hardware in v.pareto])
    _add_variants(figure, shown, hardware, (x, y), scale=scale, reference=summary.original(results))
    figure.update_layout(
        template=template(),
        title_text=f"{safe(quality[:1].upper() + quality[1:])} against energy on {safe(hardware)}",
        height=460,
        xaxis_title_text=f"energy of one inference ({letter}J)",
        xaxis_type="log" if logarithmic else "linear",
        xaxis_rangemode="tozero",
        yaxis={"title_text": f"{safe(quality)} ({better} is better)", **ticks},
    )
    figure.add_annotation(
        text="↖ better" if better == "higher" else "↙ better",
        xref="x domain",
        yref="y domain",
        x=0.01,
        y=0.99 if better == "higher" else 0.01,
        showarrow=False,
        font_color=GREY,
    )
    return figure


def _add_front(figure: go.Figure, points: Sequence[tuple[float, float]]) -> None:
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines",
        line={"shape": "hv", "color": ACCENT, "width": 2},
        opacity=0.5,
        name="Pareto front",
        hoverinfo="skip",
    )


def _add_variants(
    figure: go.Figure,
    shown: Sequence[VariantResult],
    hardware: str,
    points: tuple[Sequence[float], Sequence[float]],
    *,
    scale: float,
    reference: VariantResult | None,
) -> None:
    """Add one trace for each kind of point, told apart by shape as well as by colour."""
    x, y = points
    sides = _label_sides(x, y, [variant.name for variant in shown])
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for row, variant in enumerate(shown):
        if variant is reference:
            kind = ("original", "diamond", ACCENT if hardware in variant.pareto else GREY)
        elif hardware in variant.pareto:
            kind = ("Pareto-optimal", "circle", ACCENT)
        else:
            kind = ("others", "circle-open", GREY)
        kinds.setdefault(kind, []).append(row)
    for (name, symbol, colour), rows in kinds.items():
        figure.add_scatter(
            x=[x[row] for row in rows],
            y=[y[row] for row in rows],
            error_x=whiskers([shown[row].hardware[hardware] for row in rows], scale),
            mode="markers+text",
            marker={"symbol": symbol, "size": 12, "color": colour, "line": {"width": 2, "color": colour}},
            text=[safe(shown[row].name) for row in rows],
            textposition=[sides[row] for row in rows],
            cliponaxis=False,
            customdata=[shown[row].name for row in rows],
            hovertext=[_portrait(shown[row], hardware) for row in rows],
            hovertemplate="%{hovertext}<extra></extra>",
            name=name,
        )


def _vertical(variants: Sequence[VariantResult]) -> tuple[str, str, Callable[[VariantResult], float | None]]:
    """Return the name of what the vertical axis shows, what is better, and how to read it of a variant."""
    metric = next((variant.metric for variant in variants if variant.metric), None)
    if metric is not None:
        return metric.name, metric.better, lambda v: v.metric.value if v.metric else None
    if all(variant.agreement is None or variant.agreement.snr_db is None for variant in variants):
        return "share of equal outputs", "higher", lambda v: v.agreement.equal if v.agreement else None
    return (
        "agreement with the original, dB",
        "higher",
        lambda v: v.agreement.decibels if v.agreement else None,
    )


def _finite(values: Sequence[float]) -> tuple[list[float], dict[str, object]]:
    """Move infinite values to the edge of the plot, and return the ticks that label them."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) == len(values):
        return list(values), {}
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    step = 10 ** math.floor(math.log10(high - low or 10.0))
    rim = (high + max(step, (high - low) / 4), low - max(step, (high - low) / 4))
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [step * count for count in range(first, last + 1)] if finite else []
    signs = [sign for sign in (math.inf, -math.inf) if sign in values]
    return (
        [value if math.isfinite(value) else rim[value < 0] for value in values],
        {
            "tickvals": [*ticks, *(rim[sign < 0] for sign in signs)],
            "ticktext": [*(f"{tick:g}" for tick in ticks), *(units.number(sign) for sign in signs)],
        },
    )


def _label_sides(x: Sequence[float], y: Sequence[float], names: Sequence[str]) -> list[str]:
    """Choose for each label the side of its point where it covers the fewest other labels and points."""
    wide, tall = (max(v, default=1.0) - min(v, default=0.0) or 1.0 for v in (x, y))
    spots = [(600 * each / wide, 300 * other / tall) for each, other in zip(x, y, strict=True)]
    taken = [(left - 8, left + 8, low - 8, low + 8) for left, low in spots]
    sides = []
    for (left, low), name in zip(spots, names, strict=True):
        half = 4.0 * len(name)
        boxes = [
            (left - half, left + half, low + 8, low + 24),
            (left - half, left + half, low - 24, low - 8),
            (left + 9, left + 9 + 2 * half, low - 8, low + 8),
            (left - 9 - 2 * half, left - 9, low - 8, low + 8),
        ]
        covered = [
            sum(box[0] < t[1] and t[0] < box[1] and box[2] < t[3] and t[2] < box[3] for t in taken)
            for box in boxes
        ]
        best = covered.index(min(covered))
        taken.append(boxes[best])
        sides.append(LABEL_SIDES[best])
    return sides


def _portrait(variant: VariantResult, hardware: str) -> str:
    """Return all numbers of a variant, in a few lines."""
    score = variant.hardware[hardware]
    span = f"{units.si(score.energy_low, 'J')} to {units.si(score.energy_high, 'J')}"
    lines = [f"<b>{safe(variant.name)}</b>", *(safe(each) for each in variant.passes)]
    if variant.metric:
        value = f"{units.number(variant.metric.value)} ({units.signed(variant.metric.delta)})"
        lines.append(f"{safe(variant.metric.name)} {value}")
    if variant.agreement:
        lines.append(f"agreement {', '.join(variant.agreement.figures)}")
    lines.append(f"energy {units.si(score.energy_joules, 'J')} ({span})")
    lines.append(f"DRAM traffic {units.si(score.dram_bytes, 'B')}, time {units.si(score.seconds, 's')}")
    lines.append(f"file {units.si(variant.file_bytes, 'B')}")
    if variant.latency_seconds:
        latency = variant.latency_seconds
        ratio = units.ratio(latency.ratio, 1.0)
        lines.append(f"latency here {units.si(latency.median, 's')} ({ratio} the original's)")
    return "<br>".join(lines)
