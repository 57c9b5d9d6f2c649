"""A comparison of two models in the terminal: the numbers, the layers that lose most, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from compress import units
from compress.diagnose.kernels import Finding
from compress.evaluate.comparison import Cause, Comparison, LayerNoise
from compress.report.terminal import translated

MOST_LAYERS = 10
"""Layers in the table, those that add most noise."""
NAME_WIDTH = 22
"""Characters of a layer's name in the table."""
MOST_NAMES = 4
"""Layers named in a sentence."""
SAME_SPEED = 0.05
"""Relative difference of latency that two runs of one model may have."""
WORDS: Mapping[Cause, str] = {
    "saturation": "sums saturate in the integer kernel: use 7-bit weights on this CPU",
    "range": "a quantizer cuts values off: choose the range by mse or minmax, or calibrate on more data",
    "outlier channel": "one feature is far larger than the others and leaves them few steps of the range: "
    "smooth the layer, or leave it out",
    "activations": "its activations are rounded coarsely: more bits for them, or leave the layer out",
    "weights": "its weights are rounded coarsely: smaller groups, more bits, or a better solver",
    "other shape": "channels were removed from it or the data choose its size, so it cannot be compared",
    "no signal": "the original's values are all zero, so any noise is infinite beside them",
    "unknown": "neither rounding nor ranges explain it: its float weight was changed, or it amplifies "
    "the noise of its inputs",
    "none": "it adds no noise",
}
"""What a cause means and what to do about it."""


UNCOMPARED: tuple[Cause, ...] = ("other shape", "no signal")
"""Causes for which no noise is measured."""


def show_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print a comparison, from 80 columns up."""
    console = console or Console(markup=False, highlight=False, emoji=False)
    for part in _parts(comparison, console):
        console.print(translated(Text(part), console) if isinstance(part, str) else part)


def _parts(comparison: Comparison, console: Console) -> Iterator[RenderableType]:
    plural = "es" * (comparison.batches > 1)
    yield f"{comparison.variant} against {comparison.original}"
    yield f"inputs: {comparison.batches} batch{plural} of {comparison.data}"
    if comparison.data == "random numbers":
        yield "Random inputs show little of what real ones would lose; give --recipe or --data."
    yield ""
    yield from _numbers(comparison)
    if comparison.layers:
        yield ""
        yield _layers(comparison.layers, console)
        yield "own noise: noise over signal that the layer itself adds"
    worst = comparison.worst
    if worst is not None:
        yield ""
        yield f"{worst.name} loses most: {WORDS[worst.cause]}."
    yield from _notes(comparison)


def _numbers(comparison: Comparison) -> Iterator[str]:
    agreement, latency = comparison.agreement, comparison.latency
    before, after = comparison.weight_bytes
    speed = "as fast as the original on this CPU"
    if abs(latency.ratio - 1) > SAME_SPEED:
        speed = f"{'faster' if latency.ratio < 1 else 'slower'} than the original on this CPU"
    yield f"agreement  {', '.join(agreement.figures)}"
    yield from (f"           {remark}" for remark in agreement.remarks)
    yield f"weights    {units.si(before, 'B')} → {units.si(after, 'B')} {units.ratio(after, before)}".rstrip()
    yield f"latency    {units.si(latency.median, 's')} {units.ratio(latency.ratio, 1)}, {speed}"
    yield (
        f"quantized  {comparison.quantized_macs:.1%} of the multiply-accumulates, "
        f"{comparison.quantized_weights:.1%} of the weight bytes"
    )


def _layers(layers: Sequence[LayerNoise], console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="", padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("operator", no_wrap=True)
    for header in ("SNR", "own noise", "clipped", "outlier"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("cause", no_wrap=True)
    for layer in sorted(layers, key=lambda each: -each.added)[:MOST_LAYERS]:
        cells = (
            _short(layer.name),
            layer.op_type,
            units.MISSING if layer.snr_db is None else units.decibels(layer.snr_db),
            f"{layer.added:.2g}" if layer.added else "",
            "" if layer.clipped is None else f"{layer.clipped:.2%}",
            "" if layer.outlier is None else units.ratio(layer.outlier, 1),
            layer.cause if layer.added or layer.cause in UNCOMPARED else "",
        )
        table.add_row(*(translated(Text(cell), console) for cell in cells))
    return table


def _short(name: str) -> str:
    """Return the end of a long name, where names of layers differ."""
    return name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"


def _notes(comparison: Comparison) -> Iterator[str]:
    for reason, names in _grouped(comparison.still_float.items()):
        yield f"\nstill float: {_named(names)}{f': {reason}' if reason else ''}"
    if comparison.not_found:
        yield f"\nnot in the variant under the same name: {_named(comparison.not_found)}"
    if comparison.in_bodies:
        yield f"\nin bodies, where values are not compared: {_named(comparison.in_bodies)}"
    for title, findings in (("not fused", comparison.unfused), ("kernels", comparison.slow)):
        yield from _findings(title, findings)


def _findings(title: str, findings: Sequence[Finding]) -> Iterator[str]:
    for said, names in _grouped((each.layer, f"{each.problem}; {each.advice}") for each in findings):
        yield f"\n{title}: {_named(names)}: {said}"


def _grouped(reasons: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Return names by reason, the reason of most layers first."""
    groups: dict[str, list[str]] = {}
    for name, reason in reasons:
        groups.setdefault(reason, []).append(name)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
