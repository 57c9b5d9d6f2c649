"""What a graph says of its outputs, and where they are decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from compress.diagnose.outputs import Output, decided, read_outputs

Build = Callable[..., Any]
DETECTOR = """
g (float[1,N,4] boxes, float[1,2,N] scores) => (int64[K,3] found, float[K] kept, int64[1,N] best) {
    sure = Sigmoid(scores)
    found = NonMaxSuppression(boxes, sure, most)
    chosen = Gather<axis=1>(found, place)
    flat = Reshape(sure, all)
    kept = Gather(flat, chosen)
    best = ArgMax<axis=1, keepdims=0>(scores)
}"""
SETTINGS = {"most": np.array([5]), "place": np.array(2), "all": np.array([-1])}


def read(build: Build, text: str, **weights: Any) -> ir.Model:
    return ir.from_proto(build(text, **weights))


def test_sizes_that_the_data_tell(build: Build) -> None:
    found, kept, best = read_outputs(read(build, DETECTOR, **SETTINGS).graph)
    assert found == Output("found", None, is_chosen=True, along=0)
    assert kept == Output("kept", None, is_chosen=True, along=0)
    assert best == Output("best", frozenset())
    assert found.may_differ((3, 3), (2, 3))
    assert not best.may_differ((1, 3), (1, 2))


def test_axes_that_no_input_names_are_free(build: Build) -> None:
    text = "g (float[N,4] x) => (float[N,M] y) { y = Reshape(x, shape) }"
    (output,) = read_outputs(read(build, text, shape=np.array([-1, 2])).graph)
    assert output.free == {1}
    assert output.may_differ((2, 3), (2, 4)) and not output.may_differ((2, 3), (1, 3))
    assert output.may_differ((2, 3), (0, 0)) and not output.may_differ((2, 3), (2, 3, 1))


def test_scores_decide_what_is_chosen(build: Build) -> None:
    model = read(
        build,
        DETECTOR.replace("ArgMax<axis=1, keepdims=0>(scores)", "ArgMax<axis=1, keepdims=0>(sure)"),
        **SETTINGS,
    )
    assert [value.name for value in decided(model).graph.outputs] == ["sure", "flat"]
    assert [value.name for value in model.graph.outputs] == ["found", "kept", "best"]


def test_floats_decide_themselves_and_labels_of_inputs_stay(build: Build) -> None:
    model = read(
        build,
        "g (float[N,4] x) => (float[N,4] y, int64[N] z) { y = Relu(x) z = ArgMax<axis=1, keepdims=0>(x) }",
    )
    assert decided(model) is model
