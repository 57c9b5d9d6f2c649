"""Shape arithmetic on Python integers gives what the tensors would."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.trainable.operators.host import HOST

sizes = st.integers(min_value=0, max_value=1000)
vectors = st.lists(sizes, min_size=1, max_size=5)
ELEMENTWISE = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Equal": np.equal, "Max": np.maximum}


@given(st.sampled_from(sorted(ELEMENTWISE)), vectors | sizes, sizes)
def test_elementwise_operators_broadcast_like_numpy(name: str, a: Any, b: int) -> None:
    for left, right in ((a, b), (b, a), (a, a), (a, [b])):
        result = HOST[name](left, right)
        assert np.array_equal(result, ELEMENTWISE[name](left, right))
        assert np.ndim(result) == max(np.ndim(left), np.ndim(right))


@given(st.integers(-50, 50), st.integers(-50, 50).filter(bool))
def test_division_goes_towards_zero(a: int, b: int) -> None:
    assert HOST["Div"](a, b) == int(np.trunc(a / b))


@given(vectors, st.integers(-6, 6), st.integers(-6, 6), st.sampled_from([1, 2, -1]))
def test_slice_is_that_of_a_list(x: list[int], start: int, end: int, step: int) -> None:
    assert HOST["Slice"](x, [start], [end], [0], [step]) == x[start:end:step]


def test_vectors_and_numbers_turn_into_each_other() -> None:
    assert HOST["Unsqueeze"](7, [0]) == [7]
    assert HOST["Squeeze"]([7]) == 7
    assert HOST["Reshape"]([7], []) == 7
    assert HOST["Reshape"](7, [-1]) == [7]
    assert HOST["Concat"]([1], [2, 3], axis=0) == [1, 2, 3]
    assert HOST["Gather"]([4, 5, 6], -1) == 6
    assert HOST["Gather"]([4, 5, 6], [2, 0]) == [6, 4]
    assert HOST["ReduceProd"]([4, 5, 6], keepdims=0) == 120
    assert HOST["Where"]([True, False], [1, 2], 9) == [1, 9]
    assert HOST["ConstantOfShape"]([3], value=ir.tensor(np.array([1]))) == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "arguments", "attributes"),
    [
        ("Unsqueeze", ([1, 2], [0]), {}),
        ("Gather", (3, 0), {}),
        ("Cast", (3,), {"to": int(ir.DataType.FLOAT)}),
        ("ConstantOfShape", ([2, 3],), {"value": ir.tensor(np.array([1]))}),
        ("ConstantOfShape", ([2],), {"value": ir.tensor(np.array([1.0]))}),
        ("Concat", (3, [1]), {"axis": 0}),
    ],
)
def test_what_is_no_shape_is_left_to_torch(
    name: str, arguments: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    assert HOST[name](*arguments, **attributes) is NotImplemented
