from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from compress.changes import Change, Effect
from compress.errors import StoreError
from compress.report import write
from compress.report.html import render
from compress.results import Results, Searched, WeightShare

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, text, and what scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads(next(script for script in self.scripts if script.startswith('{"templates"')))


@pytest.fixture(scope="module")
def page(results: Results) -> Page:
    return Page(render(results))


def test_the_page_holds_everything(results: Results, page: Page) -> None:
    for variant in results.variants:
        assert variant.name in page.text
    for words in (
        "Digits, cheaper",
        "digits_cnn.py:build",
        "73.8 µJ",
        "−0.0028",
        "identical",
        "0.65×",
        "avx2",
    ):
        assert words in page.text
    assert "failed int2-weights: layer 'features.block0.conv0'" in page.text
    assert "limit missed energy on eyeriss-v1 is 58%" in page.text
    assert "prune-channels, per channel" in page.text


def test_the_page_tells_what_was_left_and_what_is_unchanged(results: Results) -> None:
    first, second, *others = results.variants
    left = second.model_copy(update={"weights": WeightShare(compressed=0.42, left="too small to gain")})
    same = first.model_copy(update={"name": "same", "status": "unchanged", "reason": "nothing to gain"})
    text = Page(render(results.model_copy(update={"variants": [first, left, same, *others]}))).text
    assert "42%" in text and "58% of the weight bytes stayed as they were, most of it too small" in text
    assert "unchanged nothing to gain" in text and "1 unchanged" in text


def test_every_plot_is_there_for_every_profile_and_variant(results: Results, page: Page) -> None:
    assert list(page.figures["profiles"]) == ["eyeriss-v1", "tpu-v4i", "cpu"]
    for figures in page.figures["profiles"].values():
        assert figures["front"]["data"] and figures["components"]["data"]
        assert list(figures["variants"]) == [v.name for v in results.variants if v.status == "done"]
        for each in figures["variants"].values():
            assert all(each[kind]["data"] and each[kind]["label"] for kind in ("energy", "dram", "roofline"))


def test_the_page_needs_no_network(page: Page) -> None:
    for tag, attributes in page.elements:
        assert not {"src", "href"} & attributes.keys(), (tag, attributes)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "http:" not in policy and "https:" not in policy


def test_the_page_stays_under_two_megabytes(make_results: Callable[..., Results], tmp_path: Path) -> None:
    names = ("original", "int8", "int4-weights", "pruned", "pruned-int8", "half-energy", "float16")
    results = make_results(names, layers=60)
    twin = results.variants[4].model_copy(update={"name": "pruned-int8-again"})
    path = write(results.model_copy(update={"variants": [*results.variants, twin]}), tmp_path / "report.html")
    assert path.stat().st_size < 2_000_000


def test_nothing_of_the_users_becomes_markup(make_results: Callable[..., Results]) -> None:
    results = make_results(("original", "int8"), failed={HOSTILE: HOSTILE}, title=HOSTILE, model=HOSTILE)
    score = results.variants[1].hardware["cpu"]
    layers = [layer.model_copy(update={"name": HOSTILE + str(i)}) for i, layer in enumerate(score.layers)]
    changes = [replace(change, layer=HOSTILE, fell_short=HOSTILE) for change in results.variants[1].changes]
    hostile = results.variants[1].model_copy(
        update={
            "name": HOSTILE + "!",
            "hardware": {"cpu": score.model_copy(update={"layers": layers}), HOSTILE: score},
            "changes": changes,
            "limits_missed": [HOSTILE],
        }
    )
    page = Page(
        render(
            results.model_copy(
                update={
                    "variants": [results.variants[0], hostile, results.variants[2]],
                    "environment": {HOSTILE: {HOSTILE: HOSTILE}},
                }
            )
        )
    )
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert not any(tag == "img" for tag, _ in page.elements)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert HOSTILE in page.text
    for figure in page.figures["profiles"]["cpu"]["variants"][HOSTILE + "!"].values():
        for trace in figure["data"]:
            assert not re.search(r"<(script|img)", json.dumps([trace.get("text"), trace.get("hovertext")]))


@pytest.mark.parametrize("names", [("original",), ("int8",), ("original", "int8")])
def test_any_number_of_variants_will_do(make_results: Callable[..., Results], names: tuple[str, ...]) -> None:
    assert names[0] in Page(render(make_results(names, hardware=("cpu",)))).text


def test_without_a_metric_agreement_takes_its_place(results: Results) -> None:
    variants = [variant.model_copy(update={"metric": None}) for variant in results.variants]
    text = Page(render(results.model_copy(update={"variants": variants}))).text
    assert "Agreement against energy" in text
    assert "accuracy" not in text


def test_when_all_failed_the_reasons_remain(make_results: Callable[..., Results]) -> None:
    page = Page(render(make_results((), failed={"int8": "no calibration data", "int4": "no layer fits"})))
    assert "No variant has finished" in page.text
    assert "no calibration data" in page.text
    assert not page.scripts


def test_without_hardware_there_is_still_a_table(make_results: Callable[..., Results]) -> None:
    page = Page(render(make_results(("original", "int8"), hardware=())))
    assert "45.5 kB" in page.text
    assert not page.scripts


def test_what_integers_mean_is_told_of_every_layer(make_results: Callable[..., Results]) -> None:
    layers = [f"conv{place}{HOSTILE}" for place in range(200)]
    effects = [
        Effect(place > 9, 200 + place / 10, 0.02, 0.01, "" if place > 9 else "too noisy")
        for place in range(200)
    ]
    changes = [
        Change(layer, "8 bits", 8, 2, by="int8", effect=effect)
        if place % 2
        else Change(layer, skipped="small", by="int8", effect=effect)
        for place, (layer, effect) in enumerate(zip(layers, effects, strict=True))
    ]
    results = make_results(("original", "int8"), hardware=())
    twice = [*changes[:2], replace(changes[1], action="biases corrected"), *changes[2:]]
    int8 = results.variants[1].model_copy(update={"changes": twice})
    page = Page(render(results.model_copy(update={"variants": [results.variants[0], int8]})))
    assert "190 of 200 layers in integers" in page.text
    for place, layer in enumerate(layers):
        assert layer in page.text and page.text.count(f"{200 + place / 10:.1f} dB") == 1
    assert page.text.count("float: too noisy") == 10 and "Left in float, 10 layers: too noisy" in page.text
    (place,) = (attributes["data-figure"] for _, attributes in page.elements if "data-figure" in attributes)
    drawn = page.figures["passes"][place]
    assert sum(len(trace["x"]) for trace in drawn["data"] if trace["type"] == "bar") == 200
    assert not re.search(r"<(script|img)", json.dumps([trace["hovertext"] for trace in drawn["data"]]))


def test_why_layers_stay_in_float_needs_no_picture(make_results: Callable[..., Results]) -> None:
    change = Change(
        "table", "8 bits", 8, 2, by="int8", effect=Effect(in_integers=False, why="used otherwise")
    )
    results = make_results(("original", "int8"), hardware=())
    int8 = results.variants[1].model_copy(update={"changes": [change]})
    page = Page(render(results.model_copy(update={"variants": [results.variants[0], int8]})))
    assert "float: used otherwise" in page.text
    assert not page.scripts and not any("data-figure" in attributes for _, attributes in page.elements)


def test_results_without_a_recipe_still_have_a_title(results: Results) -> None:
    assert "Results" in Page(render(results.model_copy(update={"recipe": {}}))).text


def test_what_cannot_be_written_leaves_nothing_behind(results: Results, tmp_path: Path) -> None:
    taken = tmp_path / "report.html"
    taken.mkdir()
    with pytest.raises(StoreError, match=r"report\.html: cannot be written"):
        write(results, taken)
    assert list(tmp_path.iterdir()) == [taken]
    with pytest.raises(StoreError, match="No such file"):
        write(results, tmp_path / "missing" / "report.html")


def test_a_search_has_its_pictures_and_its_table(results: Results, searched: Searched) -> None:
    hostile = searched.points[1].model_copy(update={"plan": {"weights": {HOSTILE: 4}}, "name": HOSTILE})
    tuned = searched.points[2].model_copy(update={"passes": [{"finetune": {"epochs": 2}}]})
    points = [searched.points[0], hostile, tuned]
    page = Page(
        render(results.model_copy(update={"searched": searched.model_copy(update={"points": points})}))
    )
    assert set(page.figures["search"]) == {"frontier", "choices"}
    assert "search-3 20.8 dB 20.0 dB 78.4 µJ 80.0 µJ 0.10×" in page.text
    assert "search-1 ∞ dB ∞ dB 784 µJ 800 µJ 1.00× ±0 as it was" in page.text
    assert page.text.count("kept behind 1 layer, fine-tuned") == page.text.count("fine-tuned") == 1
    assert not any("onerror" in attributes for _, attributes in page.elements)
    drawn = json.dumps(page.figures["search"])
    assert "alert(1)" in drawn and "<img" not in drawn
    assert "What the search found" not in Page(render(results)).text
