"""Results as tables in the terminal, readable from 80 columns up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress import estimator, units
from compress.changes import Change, by_pass
from compress.report import searching
from compress.report.summary import all_remarks, indistinct, original, profiles, spent
from compress.results import Agreement, Results, Searched, VariantResult

PARETO, LIKE_ORIGINAL, LIKE_NEIGHBOUR, REMARKED = "★", "≈", "~", "!"
ASCII = str.maketrans(
    {"★": "*", "≈": "=", "×": "x", "µ": "u", "∞": "inf", "−": "-", "±": "+-", "–": "-", "✗": "x"}
    | {"·": "/", "→": "->", "…": "..."}
)
"""Replacements on a terminal that can only show ASCII."""
UNBOUNDED = 10_000
"""Columns of a terminal that is wide enough for any table."""


@dataclass(frozen=True, slots=True)
class _Column:
    header: str
    cells: Sequence[Text]


def show(results: Results, console: Console | None = None) -> None:
    """Print the results of a run: one row a variant, with ratios to the original.

    The columns are spread over several tables if the terminal is too narrow for one. Variants that failed,
    or changed nothing or little, and limits that were missed follow in words.
    """
    console = console or Console()
    done = [variant for variant in results.variants if variant.status == "done"]
    parts: list[RenderableType] = [*_headline(results, console)]
    if done:
        reference = original(results)
        groups = [[column] for column in (*_quality(done), *_files(done, reference))]
        groups += [_hardware(results, done, reference, profile) for profile in profiles(results)]
        groups += [_making(done, profiles(results))]
        groups = [[column for column in group if any(column.cells)] for group in groups]
        for table in _tables([variant.name for variant in done], [g for g in groups if g], console):
            parts += ["", table]
        parts += ["", *_legend(results, console)]
    if results.searched:
        parts += ["", *_searched(results.searched, console)]
    console.print(Group(*parts, *_problems(results, console)))


def show_changes(changes: Sequence[Change], console: Console | None = None) -> None:
    """Print in a few lines what each pass did to the layers, and why it left some alone."""
    console = console or Console()
    lines = []
    for done in by_pass(changes):
        lines.append(_text(console, (done.name, "bold"), ("  ", ""), (str(done), "")))
        for what, reasons in (("left in float", done.left_in_float), ("skipped", done.skipped)):
            for reason, layers in reasons:
                named = ", ".join(layers[:3]) + (" …" if len(layers) > 3 else "")
                told = f"{what} {len(layers)}: {reason} ({named})" if any(layers) else reason
                lines.append(_text(console, (f"  {told}", "dim")))
    console.print(Group(*lines))


def _searched(searched: Searched, console: Console) -> Iterator[RenderableType]:
    """Yield what the search predicted and found, on data that it held out."""
    title = f"Search for the least {searching.cost(searched)} on {searched.hardware}"
    yield _text(console, (title, "bold"))
    yield searching.table(searched)
    yield from (_text(console, (note, "dim")) for note in searched.notes)


def _headline(results: Results, console: Console) -> Iterator[Text]:
    title = str(results.recipe.get("title") or results.recipe.get("path") or "")
    model = str(results.recipe.get("model") or "")
    if title or model:
        yield _text(console, (title, "bold"), ("  " * bool(title), ""), (model, "dim"))


def _quality(done: Sequence[VariantResult]) -> list[_Column]:
    metrics = [variant.metric for variant in done]
    named = next((metric for metric in metrics if metric is not None), None)
    header = f"{named.name}\n{named.better} is better" if named else ""
    values = [
        (units.number(metric.value), units.signed(metric.delta) if metric.delta or variant.passes else "")
        if metric
        else ("", "")
        for variant, metric in zip(done, metrics, strict=True)
    ]
    return [
        _Column(header, _pairs(values)),
        *_agreement([variant.agreement for variant in done]),
    ]


def _agreement(agreements: Sequence[Agreement | None]) -> Iterator[_Column]:
    """Yield columns of how close variants are: by noise or else by equal elements, and what else is known."""
    close, tops, labels = [], [], []
    for each in agreements:
        cosine = units.cosine(each.cosine) if each and each.cosine is not None else ""
        close.append((each.figures[0], cosine) if each else ("", ""))
        tops.append((units.share(each.top1), "") if each and each.top1 is not None else ("", ""))
        noisy = each if each and each.snr_db is not None else None
        labels.append((units.share(noisy.equal), "") if noisy and noisy.equal is not None else ("", ""))
    yield _Column("agreement\nSNR, cosine", _pairs(close))
    yield _Column("top-1\nkept", _pairs(tops))
    yield _Column("labels\nequal", _pairs(labels))


def _files(done: Sequence[VariantResult], reference: VariantResult | None) -> list[_Column]:
    base = reference.file_bytes if reference else 0
    sizes = [(units.si(variant.file_bytes, "B"), units.ratio(variant.file_bytes, base)) for variant in done]
    times = [
        (units.si(latency.median, "s"), units.ratio(latency.ratio, 1.0)) if latency else ("", "")
        for latency in (variant.latency_seconds for variant in done)
    ]
    return [
        _Column("file\nsize", _pairs(sizes)),
        _Column("weights\ncompressed", _pairs([_share(variant) for variant in done])),
        *_packed(done, base),
        _Column("latency\nmedian", _pairs(times)),
    ]


def _share(variant: VariantResult) -> tuple[str, str]:
    """Return the share of the weight bytes that were compressed, with a mark if many were not."""
    if variant.weights is None:
        return "", ""
    return f"{variant.weights.compressed:.0%}", REMARKED * variant.weights.is_low


def _packed(done: Sequence[VariantResult], base: int) -> Iterator[_Column]:
    """Yield the sizes of the packed files, against the original's ONNX file, if there are any."""
    if any(variant.packed_bytes for variant in done):
        sizes = [(units.si(one.packed_bytes, "B"), units.ratio(one.packed_bytes, base)) for one in done]
        yield _Column("packed\nsize", _pairs(sizes))


def _hardware(
    results: Results, done: Sequence[VariantResult], reference: VariantResult | None, profile: str
) -> list[_Column]:
    alike = indistinct(results, profile)
    base = reference.hardware.get(profile) if reference else None
    energy = [("", "")] * len(done)
    traffic = [("", "")] * len(done)
    marks = [""] * len(done)
    for row, variant in enumerate(done):
        score = variant.hardware.get(profile)
        if score is None:
            energy[row] = ("does not run" if profile in variant.refused else "", "")
            continue
        share = units.ratio(score.energy_joules, base.energy_joules if base else 0)
        energy[row] = units.si(score.energy_joules, "J"), repr(score.ratio) if score.ratio else share
        if score.dram_bytes:
            traffic[row] = (
                units.si(score.dram_bytes, "B"),
                units.ratio(score.dram_bytes, base.dram_bytes if base else 0),
            )
        others = alike.get(variant.name, ())
        overlap = LIKE_ORIGINAL if reference and reference.name in others else LIKE_NEIGHBOUR
        marks[row] = (PARETO if profile in variant.pareto else " ") + (overlap if others else "")
    width = max(map(len, marks))
    cells = [
        Text.assemble(cell, (f" {mark:<{width}}" if width else "", "bold yellow"))
        for cell, mark in zip(_pairs(energy), marks, strict=True)
    ]
    return [_Column(f"{profile}\nenergy", cells), _Column("\nDRAM traffic", _pairs(traffic))]


def _making(done: Sequence[VariantResult], hardware: Sequence[str]) -> list[_Column]:
    """Return columns of what the passes cost here, measured and estimated apart, and when that is saved."""
    made = [estimator.spending.total(each.making, each.name) if each.making else None for each in done]
    estimated = [(units.si(one.estimated_joules, "J") if one else "", "") for one in made]
    measured = [
        (units.si(one.measured_joules, "J") if one and one.measured_joules is not None else "", "")
        for one in made
    ]
    columns = [_Column("making\nestimated", _pairs(estimated)), _Column("\nmeasured", _pairs(measured))]
    for profile in hardware:
        scores = [each.hardware.get(profile) for each in done]
        saved = [(str(one.payback) if one and one.payback else "", "") for one in scores]
        columns.append(_Column(f"pays after\n{profile}", _pairs(saved)))
    return columns


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[Text]:
    """Return cells of a value and its comparison to the original, both aligned to the right."""
    left = max(len(value) for value, _ in pairs)
    right = max(len(extra) for _, extra in pairs)
    return [
        Text.assemble(f"{value:>{left}}", (f" {extra:>{right}}" if right else "", "dim")) if value else Text()
        for value, extra in pairs
    ]


def _tables(names: Sequence[str], groups: Sequence[list[_Column]], console: Console) -> Iterator[Table]:
    """Put as many groups of columns side by side as the width holds, each table led by the names."""
    waiting: list[_Column] = []
    for group in groups:
        wider = [*waiting, *group]
        if waiting and _width(_table(names, wider, console), console) > console.width:
            yield _table(names, waiting, console)
            wider = group
        waiting = wider
    if waiting:
        yield _table(names, waiting, console)


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum


def _table(names: Sequence[str], columns: Sequence[_Column], console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="", show_edge=False)
    table.add_column("variant", style="bold", overflow="fold", max_width=28, vertical="bottom")
    for column in columns:
        table.add_column(_text(console, (column.header, "")), justify="right", no_wrap=True)
    for row, name in enumerate(names):
        table.add_row(
            _text(console, (name, "")), *(translated(column.cells[row], console) for column in columns)
        )
    return table


def _legend(results: Results, console: Console) -> Iterator[Text]:
    reference = original(results)
    overlaps = [others for profile in profiles(results) for others in indistinct(results, profile).values()]
    like_original = any(reference is not None and reference.name in others for others in overlaps)
    like_neighbour = any(reference is None or reference.name not in others for others in overlaps)
    lines = []
    if reference is not None and len(results.variants) > 1:
        lines.append(f"× is the ratio to {reference.name}; latencies were timed in turn with it")
    if any(score.ratio for variant in results.variants for score in variant.hardware.values()):
        lines.append("(low–high) is where a ratio of energies lies with 90 % probability")
    if any(variant.pareto for variant in results.variants):
        lines.append(f"{PARETO} Pareto-optimal: no other variant is as good in both metric and energy")
    if like_original:
        lines.append(f"{LIKE_ORIGINAL} a tie with the original: less than 90 % sure which takes less energy")
    if like_neighbour:
        lines.append(f"{LIKE_NEIGHBOUR} a tie with the next variant in order")
    if any(variant.making for variant in results.variants):
        lines.append(
            "making: energy of the passes on this machine; pays after: inferences that save as much there"
        )
    for line in (*lines, *all_remarks(results), *spent(results)):
        yield _text(console, (line, "dim"))


def _problems(results: Results, console: Console) -> Iterator[Text]:
    for variant in results.variants:
        if variant.status == "failed":
            traceback = f" (traceback in {variant.log})" if variant.log else ""
            yield _text(
                console, (f"✗ {variant.name}", "bold red"), (f" failed: {variant.reason}{traceback}", "")
            )
        if variant.status == "unchanged":
            yield _text(console, (f"= {variant.name}", "bold"), (f" unchanged: {variant.reason}", ""))
        for remark in variant.remarks:
            yield _text(console, (f"{REMARKED} {variant.name}", "bold"), (f": {remark}", ""))
        for limit in variant.limits_missed:
            yield _text(console, (f"✗ {variant.name} missed a limit: {limit}", "bold red"))


def _text(console: Console, *parts: tuple[str, str]) -> Text:
    """Build text from parts with a style each, without markup, in characters that the terminal can show."""
    return translated(Text.assemble(*parts), console)


def translated(text: Text, console: Console) -> Text:
    """Return text in characters that the terminal can show."""
    return Text(text.plain.translate(ASCII), text.style) if console.options.ascii_only else text
