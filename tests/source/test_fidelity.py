"""The first value by which a graph departs from its module, in words."""

from __future__ import annotations

import numpy as np
import pytest

from compress.source.fidelity import difference


def _found(a: object, b: object, dtype: type = np.float32) -> str:
    return difference([np.array(a, dtype)], [np.array(b, dtype)], ["y"])


def test_rounding_and_values_that_are_equally_not_finite_are_no_difference() -> None:
    assert not _found([1, np.nan, np.inf, 0], [1 + 1e-6, np.nan, np.inf, 1e-9])
    assert not _found([1, 2], [1.01, 2], np.float16)
    assert not _found([], [])
    assert not _found([1] * 200, [1] * 199 + [2], int)


@pytest.mark.parametrize(
    ("a", "b", "dtype", "words"),
    [
        ([[1, 2], [3, 4]], [[1, 2], [3, 5]], np.float32, "at [1, 1] is 5.0 where torch gives 4.0, and noise"),
        ([1, 2], [1, np.nan], np.float32, "at [1] is nan where torch gives 2.0"),
        ([0, 0], [0, 1], np.float32, "at [1] is 1.0 where torch gives 0.0"),
        ([1, 2], [1, 3], int, "at [1] is 3 where torch gives 2, and 50% of its values differ"),
        ([True], [False], bool, "is False where torch gives True"),
        (1, 2, np.float32, "'y' is 2.0 where torch gives 1.0"),
        ([1], [1, 1], np.float32, "has shape [2] where torch gives [1]"),
    ],
)
def test_the_first_value_that_differs_is_named(a: object, b: object, dtype: type, words: str) -> None:
    assert words in _found(a, b, dtype)


def test_every_output_must_be_there() -> None:
    assert difference([np.zeros(1)], [], []) == "it has 0 outputs where torch gives 1"
