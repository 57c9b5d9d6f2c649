"""Where weights are found, and along which axes they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compress.graph.layers import array, layers

Build = Callable[..., Any]


def found(build: Build, text: str, **weights: np.ndarray) -> list[tuple[str, int, int | None]]:
    """Return (weight, axis of outputs, axis of inputs) of every layer."""
    graph = ir.from_proto(build(text, **weights)).graph
    return [(layer.weight.name or "", layer.out_axis, layer.in_axis) for layer in layers(graph)]


@pytest.mark.parametrize(
    ("text", "weights", "expected"),
    [
        ("g (float[N,4] x) => (float[N,8] y) { y = MatMul(x, w) }", {"w": (4, 8)}, [("w", 1, 0)]),
        ("g (float[N,4] x) => (float[N,8] y) { y = Gemm<transB=1>(x, w) }", {"w": (8, 4)}, [("w", 0, 1)]),
        ("g (float[N,4,9] x) => (float[N,8,7] y) { y = Conv(x, w) }", {"w": (8, 4, 3)}, [("w", 0, 1)]),
        (
            "g (float[N,4,9] x) => (float[N,8,11] y) { y = ConvTranspose(x, w) }",
            {"w": (4, 8, 3)},
            [("w", 1, 0)],
        ),
        ("g (int64[N] x) => (float[N,8] y) { y = Gather(w, x) }", {"w": (4, 8)}, [("w", 0, None)]),
        ("g (int64[N] x) => (float[4,N] y) { y = Gather<axis=1>(w, x) }", {"w": (4, 8)}, []),
        (
            "g (float[T,N,4] x) => (float[T,1,N,8] y) { y = LSTM<hidden_size=8>(x, w, r) }",
            {"w": (1, 32, 4), "r": (1, 32, 8)},
            [("w", 1, 2), ("r", 1, 2)],
        ),
        (
            "g (float[N,4] x) => (float[N,8] y) { t = Transpose(w) y = MatMul(x, t) }",
            {"w": (8, 4)},
            [("w", 0, 1)],
        ),
        ("g (float[N,2,4] x) => (float[N,2,8] y) { y = MatMul(x, w) }", {"w": (2, 4, 8)}, []),
        ("g (float[N,4] x) => (float[N,4] y) { y = Mul(x, w) }", {"w": (4, 4)}, []),
    ],
)
def test_axes_of_each_kind_of_layer(
    build: Build, normal: Any, text: str, weights: dict[str, tuple[int, ...]], expected: list[Any]
) -> None:
    assert found(build, text, **{name: normal(*sizes) for name, sizes in weights.items()}) == expected


def test_weights_of_any_float_type_count_and_are_read_as_float32(build: Build, normal: Any) -> None:
    half = "g (float16[N,4] x) => (float16[N,8] y) { y = MatMul(x, w) }"
    (layer,) = layers(ir.from_proto(build(half, w=normal(4, 8).astype(np.float16))).graph)
    assert (layer.dtype, layer.nbytes, layer.array.dtype) == (ir.DataType.FLOAT16, 64, np.float32)


def test_only_weights_that_the_graph_keeps_to_itself_count(build: Build, normal: Any) -> None:
    shown = "g (float[N,4] x) => (float[N,8] y, float[4,8] w) { y = MatMul(x, w) }"
    assert not found(build, shown, w=normal(4, 8))


def test_a_value_without_content_has_no_array() -> None:
    with pytest.raises(ValueError, match="'x' is not an initializer"):
        array(ir.val("x"))
