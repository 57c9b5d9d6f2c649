"""Passes in order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import compress
from compress.errors import PassError
from compress.passes import Fold, Int4Weights, Int8Static
from compress.passes.base import REGISTRY


@pytest.fixture
def toy(build: Callable[..., onnx.ModelProto], normal: Callable[..., np.ndarray]) -> onnx.ModelProto:
    text = """g (float[batch,64] x) => (float[batch,8] y) {
        h = MatMul(x, w)
        r = Relu(h)
        y = MatMul(r, v)
    }"""
    return build(text, w=normal(64, 32), v=normal(32, 8))


def test_a_pipeline_changes_a_copy(toy: onnx.ModelProto) -> None:
    model = compress.load(toy, calibration=[np.ones((2, 64), np.float32)])
    small = compress.Pipeline([Fold(), Int8Static()])(model)
    assert small.weight_bytes < model.weight_bytes
    assert model.changes == ()
    assert small.original.changes == () and small.original.weight_bytes == model.weight_bytes
    assert {change.by for change in small.changes} == {"fold", "int8-static"}


def test_a_pipeline_is_shown_as_a_recipe_writes_it() -> None:
    assert repr(compress.Pipeline([Fold(), Int4Weights(group_size=64)])) == (
        "Pipeline([fold, integer-weights: {bits: 4, group_size: 64}])"
    )


def test_a_pass_that_fails_names_itself_and_what_came_before(toy: onnx.ModelProto) -> None:
    class Broken(Fold, name="broken-for-a-test"):
        """Fail."""

        def apply(self, model: compress.Model) -> list[Any]:
            raise PassError("layer 'h': cannot")

    del REGISTRY["broken-for-a-test"]
    with pytest.raises(
        PassError,
        match=r"^broken-for-a-test \(after integer-weights: {bits: 4}\): layer 'h': cannot",
    ):
        compress.Pipeline([Int4Weights(), Broken()])(compress.load(toy))
