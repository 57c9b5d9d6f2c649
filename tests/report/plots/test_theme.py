"""What all plots share: colours, and names that cannot become markup."""

from __future__ import annotations

from compress.report import (
    accuracy_vs_energy,
    energy_by_component,
    energy_by_layer,
    roofline,
)
from compress.report.plots.theme import component_colours
from compress.results import Results


def test_names_cannot_be_markup(results: Results) -> None:
    variants = [results.variants[0].model_copy(update={"name": "<a href='x'>y</a>"})]
    score = results.variants[0].hardware["cpu"]
    layer = score.layers[0].model_copy(update={"name": "<b>bold</b>"})
    for figure in (
        accuracy_vs_energy(results.model_copy(update={"variants": variants}), "cpu"),
        energy_by_component(results.model_copy(update={"variants": variants}), "cpu"),
        energy_by_layer(score.model_copy(update={"layers": [layer]})),
        roofline(score.model_copy(update={"layers": [layer]})),
    ):
        shown = [
            each
            for trace in figure.data
            for texts in (getattr(trace, "text", None), getattr(trace, "hovertext", None))
            for each in texts or ()
        ]
        shown += figure.layout.yaxis.ticktext or ()
        assert any("&lt;" in each for each in shown)
        assert not any("<a" in each or "<b>bold" in each for each in shown)


def test_colours_are_distinct_and_fixed_for_what_all_hardware_has() -> None:
    names = ["compute", "vector", "dram", "l3", "l2", "l1", "buffer", "link", "static"]
    colours = component_colours(names)
    assert len(set(colours.values())) == len(names)
    assert list(colours)[:3] == ["compute", "vector", "buffer"]
    assert component_colours(["dram", "registers"])["dram"] == colours["dram"]
