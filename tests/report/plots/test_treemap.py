"""The treemap: every byte is in a tile, and both maps are to one scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compress.report import bytes_by_layer
from compress.report.plots.treemap import GAP
from compress.results import Results


def test_every_byte_is_in_a_tile_of_its_kind(results: Results) -> None:
    score = results.variants[0].hardware["cpu"]
    (drawn,) = bytes_by_layer(score, most=5).data
    weights = sum(layer.dram_weight_bytes for layer in score.layers)
    assert dict(zip(drawn.ids[:2], drawn.values[:2], strict=True)) == pytest.approx(
        {"weights": weights, "activations": score.dram_bytes - weights}
    )
    for kind, total in zip(drawn.ids[:2], drawn.values[:2], strict=True):
        tiles = [v for v, parent in zip(drawn.values, drawn.parents, strict=True) if parent == kind]
        assert sum(tiles) == pytest.approx(total)
    assert len(drawn.ids) == len(set(drawn.ids)) == 2 + 5 + 2
    assert list(drawn.labels).count("other layers") == 2


def test_both_maps_are_to_one_scale(results: Results) -> None:
    before, after = (results.variants[index].hardware["cpu"] for index in (0, 1))
    figure = bytes_by_layer(after, before)
    left, right = (trace.domain.x for trace in figure.data)
    assert (right[1] - right[0]) / (left[1] - left[0]) == pytest.approx(after.dram_bytes / before.dram_bytes)
    assert (left[0], right[1]) == pytest.approx((0, 1))
    assert right[0] - left[1] == pytest.approx(GAP)
    assert [note.text.partition(",")[0] for note in figure.layout.annotations] == ["original", "this variant"]


def test_layers_of_one_name_have_a_tile_each(results: Results) -> None:
    score = results.variants[0].hardware["cpu"]
    twins = score.model_copy(update={"layers": [score.layers[0]] * 2})
    (drawn,) = bytes_by_layer(twins).data
    assert len(set(drawn.ids)) == 2 + 4


@pytest.mark.parametrize("layers", [0, 1])
def test_hardly_any_layers_will_do(make_results: Callable[..., Results], layers: int) -> None:
    score = make_results(("original",), layers=max(layers, 1)).variants[0].hardware["cpu"]
    score = score.model_copy(update={"layers": score.layers[:layers]})
    assert len(bytes_by_layer(score).data) == 1
