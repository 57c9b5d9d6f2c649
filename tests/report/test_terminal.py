from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from compress.changes import Change, Effect
from compress.report import show, show_changes
from compress.results import Results, Searched, WeightShare


def printed(results: Results, width: int, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(results, Console(file=stream, width=width))
    stream.seek(0)
    return stream.read()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_everything_is_readable_at_every_width(results: Results, width: int) -> None:
    text = printed(results, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for each in ("0.9778 −0.0028", "73.8 µJ 0.65×", "identical", "22.1 kB 0.14×", "106 kB 0.30×", "cpu"):
        assert each in text


def test_wide_terminals_have_fewer_tables(results: Results) -> None:
    tables = [printed(results, width).count("variant  ") for width in (80, 100, 160, 300)]
    assert tables == sorted(tables, reverse=True)
    assert tables[-1] == 1


def test_marks_failures_and_limits(results: Results) -> None:
    text = printed(results, 300)
    rows = {line.split()[0]: line for line in text.splitlines() if line[:1].isalpha()}
    assert rows["pruned-int8"].count("★") == 3
    assert "★" not in rows["int8"]
    tie = re.search(r"266 µJ 0.88× \((0.\d+)–(1.\d+)\)  ≈", rows["int8"])
    assert tie is not None and float(tie[1]) < 0.8 and float(tie[2]) > 1.1
    assert "✗ int2 failed: int2-weights: layer" in text
    assert "✗ half-energy missed a limit: energy on eyeriss-v1 is 58%" in text


def test_what_a_pass_could_not_reach_is_told(results: Results) -> None:
    original, variant, *others = results.variants
    short = [replace(each, fell_short="8 bits do not keep 30 dB") for each in variant.changes[:1]]
    told = variant.model_copy(update={"changes": short})
    text = printed(results.model_copy(update={"variants": [original, told, *others]}), 300)
    assert f"! {variant.name}: {short[0].by}: 8 bits do not keep 30 dB" in text


def test_signs_of_which_there_are_none_are_not_explained(make_results: Callable[..., Results]) -> None:
    text = printed(make_results(("original", "pruned-int8"), hardware=("eyeriss-v1",)), 100)
    assert "★ Pareto-optimal" in text
    assert "a tie" not in text


def test_a_terminal_without_unicode_gets_ascii(results: Results) -> None:
    text = printed(results, 100, "ascii")
    assert "73.8 uJ 0.65x" in text


def test_nothing_of_the_users_is_markup(make_results: Callable[..., Results]) -> None:
    text = printed(make_results((), failed={"[bold]x[/]": "[red]y"}), 80)
    assert "✗ [bold]x[/] failed: [red]y" in text


def test_a_variant_without_metric_has_no_column_for_it(make_results: Callable[..., Results]) -> None:
    results = make_results(("original", "int8"))
    variants = [variant.model_copy(update={"metric": None}) for variant in results.variants]
    text = printed(results.model_copy(update={"variants": variants}), 100)
    assert "accuracy" not in text
    assert "23.0 dB" in text


def test_weights_that_were_left_and_variants_without_a_change_say_so(
    make_results: Callable[..., Results],
) -> None:
    results = make_results(("original", "int8"))
    original, int8 = results.variants
    half = int8.model_copy(update={"weights": WeightShare(compressed=0.5, left="too small to gain")})
    same = int8.model_copy(update={"name": "same", "status": "unchanged", "reason": "nothing to gain"})
    text = printed(results.model_copy(update={"variants": [original, half, same]}), 160)
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "50% !" in text
    assert rows["!"] == "! int8: 50% of the weight bytes stayed as they were, most of it too small to gain"
    assert rows["="] == "= same unchanged: nothing to gain"
    assert "same" not in rows


def test_changes_in_a_few_lines() -> None:
    stream = io.StringIO()
    changes = [
        Change("conv1", "8 bits", 4000, 1000, 0.01, by="int8-static"),
        Change("conv2", "8 bits", 4000, 1000, 0.02, by="int8-static"),
        Change("add", skipped="no weight", by="int8-static"),
        Change("", skipped="no layer fits", by="prune-channels"),
    ]
    show_changes(changes, Console(file=stream, width=100))
    assert stream.getvalue().splitlines() == [
        "int8-static  2 layers, 8.00 kB → 2.00 kB 0.25×, worst error 0.02 in conv2",
        "  skipped 1: no weight (add)",
        "prune-channels  changed nothing",
        "  no layer fits",
    ]


def test_what_integers_mean_in_many_layers_takes_a_line_for_each_reason() -> None:
    stream = io.StringIO()
    whys = ("", "too noisy", "no faster")
    changes = [
        Change(
            f"conv{place}",
            "8 bits",
            4000,
            1000,
            by="int8",
            effect=Effect(place % 3 == 0, 20 + place, why=whys[place % 3]),
        )
        for place in range(50)
    ]
    show_changes(changes, Console(file=stream, width=100))
    assert stream.getvalue().splitlines() == [
        "int8  50 layers, 200 kB → 50.0 kB 0.25×, 17 of 50 layers in integers",
        "  left in float 17: too noisy (conv1, conv4, conv7 …)",
        "  left in float 16: no faster (conv2, conv5, conv8 …)",
    ]


@pytest.mark.parametrize("width", [80, 160])
def test_what_a_search_predicted_stands_beside_what_it_found(
    results: Results, searched: Searched, width: int
) -> None:
    text = printed(results.model_copy(update={"searched": searched}), width)
    assert "Search for the least energy on eyeriss-v1" in text
    (row,) = (line for line in text.splitlines() if line.startswith("search-2"))
    assert row.split() == [
        "search-2",
        "30.8",
        "dB",
        "30.0",
        "dB",
        "235",
        "µJ",
        "240",
        "µJ",
        "0.30×",
        "+0.009",
    ]
    assert "Search for" not in printed(results, width)
