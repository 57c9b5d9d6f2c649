"""Example inputs of an export, by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.data import Data
from compress.errors import ModelError
from compress.source.examples import BATCHES_LOOKED_AT, Examples


def test_inputs_in_order_get_the_leading_names() -> None:
    (example,) = Examples((torch.ones(2, 3, requires_grad=True), [[1, 2]])).by_name(["a", "b", "c"])
    assert {name: array.shape for name, array in example.items()} == {"a": (2, 3), "b": (1, 2)}


def test_a_few_calibration_batches_serve_where_nothing_is_given() -> None:
    batches = [(np.zeros((1, 3), np.float32), "label")] * (BATCHES_LOOKED_AT + 2)
    found = Examples(None, Data(batches)).by_name(["x"])
    assert [list(example) for example in found] == [["x"]] * BATCHES_LOOKED_AT
    (given,) = Examples({"y": np.zeros(2)}, Data(batches)).by_name(["x"])
    assert list(given) == ["y"], "given inputs come first"


def test_without_examples_nothing_can_be_exported() -> None:
    assert not Examples(None) and Examples(None, Data([]))
    for empty in (Examples(None), Examples(None, Data([]))):
        with pytest.raises(ModelError, match="needs example inputs or calibration data"):
            empty.by_name(["x"])


def test_calibration_batches_beside_given_inputs_are_looked_at_too() -> None:
    given = {"x": np.zeros((1, 3), np.float32)}
    batches = [{"x": np.zeros((2, 3))}, {"x": np.zeros(3)}, {"y": np.zeros((2, 3))}]
    (other,) = Examples(given, Data(batches)).others(given, ["x"])
    assert other["x"].shape == (2, 3) and other["x"].dtype == np.float32
    assert not Examples(None, Data(batches)).others(given, ["x"])
