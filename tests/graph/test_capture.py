"""Activations of a graph, batch by batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compress.errors import DataError
from compress.graph.capture import activations, observe

Build = Callable[..., Any]
TEXT = "g (float[N,8] x) => (float[N,8] y) { r = Relu(x) y = MatMul(r, w) }"


def test_activations_of_inputs_and_values(build: Build, normal: Any) -> None:
    model = ir.from_proto(build(TEXT, w=normal(8, 8)))
    x = normal(3, 8)
    batches = [{"x": x}, {"x": 2 * x}]
    found = list(activations(model, ["x", "r", "r"], batches))
    np.testing.assert_array_equal(found[1]["r"], np.maximum(2 * x, 0))
    np.testing.assert_array_equal(found[0]["x"], x)
    assert list(activations(model, ["x"], batches))[1]["x"] is batches[1]["x"]
    with pytest.raises(KeyError, match="no value 'nothing'"):
        next(activations(model, ["nothing"], batches))
    assert [value.name for value in model.graph.outputs] == ["y"], "the model is not changed"


def test_a_statistic_that_refuses_an_activation_is_told_by_batch_and_name(build: Build, normal: Any) -> None:
    model = ir.from_proto(build(TEXT, w=normal(8, 8)))
    seen = []

    def update(name: str, array: np.ndarray) -> None:
        if seen:
            raise ValueError("holds NaN")
        seen.append((name, array.shape))

    with pytest.raises(DataError, match="calibration data, batch 1: activation 'r': holds NaN"):
        observe(model, ["r"], [{"x": normal(3, 8)}, {"x": normal(2, 8)}], update)
    assert seen == [("r", (3, 8))]


def test_weights_that_are_not_finite_are_named(build: Build, normal: Any) -> None:
    weight = normal(8, 8)
    weight[2, 3] = np.nan

    def update(name: str, array: np.ndarray) -> None:
        raise ValueError("holds NaN")

    with pytest.raises(DataError, match=r"weights that hold NaN or infinite values: w$"):
        observe(ir.from_proto(build(TEXT, w=weight)), ["y"], [{"x": normal(1, 8)}], update)


def test_a_batch_is_let_go_before_the_next_one_runs(build: Build, normal: Any) -> None:
    seen: list[weakref.ref[np.ndarray]] = []

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(3):
            assert sum(array() is not None for array in seen) <= 1
            yield {"x": normal(3, 8)}

    model = ir.from_proto(build(TEXT, w=normal(8, 8)))
    observe(model, ["r", "y"], batches(), lambda _, array: seen.append(weakref.ref(array)))
    assert len(seen) == 6
