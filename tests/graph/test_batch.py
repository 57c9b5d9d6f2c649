"""Which axis is the batch: candidates from names and sizes, proof from running the model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.data import Feeds
from compress.errors import DataError
from compress.graph import batch

RANDOM = np.random.default_rng(0)


def _inputs(**shapes: list[int | str | None]) -> list[Any]:
    return [SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]


def _values(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape)


def _rows(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"] * 2, feeds["x"].argmax(-1)]


def _steps(feeds: Feeds) -> list[np.ndarray]:
    """A recurrence over the first axis that stops at each sequence's length."""
    kept = np.arange(len(feeds["x"]))[:, None] < feeds["len"]
    return [(feeds["x"] * kept[..., None]).cumsum(0), feeds["state"] + 1]


def test_rows_that_do_not_depend_on_one_another_are_samples() -> None:
    axes = batch.find(_rows, _inputs(x=["N", 3]), [{"x": _values(4, 3)}])
    assert (axes.inputs, axes.outputs) == ({"x": 0}, {0: 0, 1: 0})
    assert axes.sample({"x": np.arange(12).reshape(4, 3)}, 2)["x"].tolist() == [[6, 7, 8]]


@pytest.mark.parametrize("names", [("T", "B"), ("s0", "s1"), (None, None), ("?", "?")])
def test_the_batch_of_sequences_in_time_order_is_the_second_axis(names: tuple[str | None, ...]) -> None:
    steps, samples = names
    inputs = _inputs(x=[steps, samples, 2], len=[samples], state=[1, samples, 2])
    feeds = {"x": _values(5, 3, 2), "len": np.array([5, 2, 4]), "state": _values(1, 3, 2)}
    axes = batch.find(_steps, inputs, [feeds])
    assert (axes.inputs, axes.outputs) == ({"x": 1, "len": 0, "state": 1}, {0: 1, 1: 1})


def test_equal_sizes_of_steps_and_samples_are_told_apart() -> None:
    inputs = _inputs(x=[None, None, 2], len=[None], state=[1, None, 2])
    feeds = {"x": _values(3, 3, 2), "len": np.array([3, 2, 1]), "state": _values(1, 3, 2)}
    assert batch.find(_steps, inputs, [feeds]).inputs == {"x": 1, "len": 0, "state": 1}


def test_a_causal_sequence_is_no_batch_of_steps() -> None:
    def causal(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"].cumsum(1)]

    assert batch.find(causal, _inputs(x=["first", "second"]), [{"x": _values(4, 6)}]).inputs == {"x": 0}


def test_edges_nodes_and_rows_that_are_mixed_are_no_samples() -> None:
    def graph(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"][feeds["edges"][0]]]

    feeds = {"x": _values(6, 2), "edges": np.array([[5, 1, 0, 4]] * 2)}
    axes = batch.find(graph, _inputs(x=["nodes", 2], edges=[2, "edges"]), [feeds])
    assert not axes.inputs and axes.sample(feeds)["edges"].shape == (2, 4) and axes.size(feeds) == 1

    def centred(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"] - feeds["x"].mean(0)]

    assert not batch.find(centred, _inputs(x=["N", 3]), [{"x": _values(4, 3)}]).inputs


def test_a_batch_fixed_inside_is_not_cut() -> None:
    def fixed(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"].reshape(4, -1)]

    assert not batch.find(fixed, _inputs(x=["N", 3]), [{"x": _values(4, 3)}]).inputs
    assert not batch.find(_rows, _inputs(x=[4, 3]), [{"x": _values(4, 3)}]).inputs


def test_an_input_that_all_samples_share_stays_whole_if_the_batch_has_its_name() -> None:
    def pairs(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"] @ feeds["anchors"].T * feeds["scale"]]

    feeds = {"x": _values(4, 2), "anchors": _values(3, 2), "scale": np.float64(2)}
    named, unnamed = (_inputs(x=[name, 2], anchors=["A", 2], scale=[]) for name in ("batch_size", "M"))
    assert batch.find(pairs, named, [feeds]).inputs == {"x": 0}
    assert not batch.find(pairs, unnamed, [feeds]).inputs


def test_batches_of_one_are_put_together() -> None:
    single = [{"x": _values(1, 3)}, {"x": _values(1, 3)}]
    assert not batch.find(_rows, _inputs(x=["N", 3]), single[:1]).inputs
    assert batch.find(_rows, _inputs(x=["N", 3]), single).inputs == {"x": 0}


def test_what_is_stated_counts_where_the_model_leaves_it_open() -> None:
    feeds = {"x": _values(5, 3, 2), "len": np.array([5, 2, 4]), "state": _values(1, 3, 2)}
    inputs = _inputs(x=["T", "B", 2], len=["B"], state=[1, "B", 2])
    stated = {"x": 1, "len": 0, "state": 1}
    assert batch.find(_steps, inputs, [feeds], stated).inputs == stated
    assert not batch.find(_rows, _inputs(x=["N", 3]), [{"x": _values(4, 3)}], None).inputs
    assert not batch.find(_rows, _inputs(x=[4, 3]), [{"x": _values(4, 3)}], 0).inputs

    def centred(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"] - feeds["x"].mean(0)]

    axes = batch.find(centred, _inputs(x=["N", 3]), [{"x": _values(4, 3)}], 0)
    assert axes.inputs == {"x": 0}, "what is stated is not doubted"


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"y": 0}, "no input 'y'"),
        ({"x": 3}, "input 'x' has 3 axes, and no axis 3"),
        (3, "no input has an axis 3"),
        ({"x": 0, "len": 0}, "numbers of samples differ: 5 of 'x', 3 of 'len'"),
        ({"x": 1}, "does not run on one sample along"),
    ],
)
def test_what_is_stated_and_does_not_fit_is_an_error(stated: Any, message: str) -> None:
    feeds = {"x": _values(5, 3, 2), "len": np.array([5, 2, 4]), "state": _values(1, 3, 2)}
    inputs = _inputs(x=["T", "B", 2], len=["B"], state=[1, "B", 2])

    def strict(feeds: Feeds) -> list[np.ndarray]:
        if feeds["x"].shape[1] != len(feeds["len"]):
            raise ValueError("sizes differ")
        return _steps(feeds)

    with pytest.raises(DataError, match=message):
        batch.find(strict, inputs, [feeds], stated)


def test_without_data_the_batch_is_a_name_or_the_first_axes() -> None:
    assert batch.symbols(_inputs(x=["T", "B", 2], len=["B"])) == {"B"}
    assert batch.symbols(_inputs(x=["n", "batch_size"])) == {"batch_size"}
    assert batch.symbols(_inputs(x=["nodes", 2], e=[2, "edges"], s=[])) == {"nodes"}
