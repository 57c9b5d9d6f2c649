"""Axes that may change in size: those at whose other sizes a module runs and gives other results."""

from __future__ import annotations

import numpy as np
import pytest

from compress.data import Feeds
from compress.errors import DataError
from compress.source.free_axes import Call, batch_axes, free_axes, resized

RANDOM = np.random.default_rng(0)


def _values(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape)


def _free(call: Call, feeds: Feeds, *others: Feeds) -> set[tuple[str, int]]:
    def careful(feeds: Feeds) -> list[np.ndarray]:
        try:
            return call(feeds)
        except (ValueError, IndexError) as error:
            raise DataError(str(error)) from error

    return set(free_axes(careful, [feeds, *others], batch_axes(careful, feeds, "auto")))


def _image(feeds: Feeds) -> list[np.ndarray]:
    return [(feeds["x"] * np.arange(1, 4)[:, None, None]).cumsum(-1).mean((2, 3))]


def _flattened(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"].reshape(-1, 64) * 2]


def _columns(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"][:, 0] + feeds["x"][:, 1] * feeds["x"][:, 2]]


def _graph(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"][feeds["edges"][0]] - feeds["x"][feeds["edges"][1]] * np.arange(6)]


def _steps(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"].cumsum(0) * feeds["len"][:, None] + feeds["state"] * np.arange(2)]


@pytest.mark.parametrize(
    ("call", "feeds", "free"),
    [
        (_image, {"x": _values(1, 3, 8, 8)}, {("x", 0), ("x", 2), ("x", 3)}),
        (_flattened, {"x": _values(2, 1, 8, 8)}, {("x", 0)}),
        (_columns, {"x": RANDOM.integers(0, 9, (2, 3))}, {("x", 0)}),
        (
            _steps,
            {"x": _values(7, 3, 2), "len": _values(3), "state": _values(1, 3, 2)},
            {("x", 0), ("x", 1), ("len", 0), ("state", 1)},
        ),
    ],
)
def test_an_axis_is_free_where_the_module_takes_another_size(
    call: Call, feeds: Feeds, free: set[tuple[str, int]]
) -> None:
    assert _free(call, feeds) == free


def test_edges_of_a_graph_are_free_of_its_nodes() -> None:
    edges = np.array([[0, 3, 2, 4, 1, 0, 2, 2, 4], [4, 0, 1, 1, 3, 3, 2, 0, 0]])
    assert _free(_graph, {"x": _values(5, 6), "edges": edges}) == {("edges", 1)}


def test_what_differs_between_batches_is_free() -> None:
    assert _free(_flattened, {"x": _values(2, 8, 8)}, {"x": _values(2, 4, 16)}) >= {("x", 1), ("x", 2)}


def test_feeds_are_resized_by_beginning_again() -> None:
    changed = resized({"x": np.arange(3)[None], "y": np.zeros(2)}, {("x", 1): 5, ("x", 0): 2})
    assert changed["x"].tolist() == [[0, 1, 2, 0, 1]] * 2 and changed["y"].shape == (2,)
