"""Factors and shifts of channels go into the layers beside them, and the outputs stay what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import compress
from compress.graph.fold import fold

IMAGE = "g (float[N,4,6,6] x) => (float[A,B,C,D] y) {{ {} }}"
ROWS = "g (float[N,4] x) => (float[A,B] y) {{ {} }}"
DEEP = "g (float[N,3,4] x) => (float[A,B,C] y) {{ {} }}"
CONV = "h = Conv<pads=[1,1,1,1]>(x, w) "
SHARED = "h = Conv(x, w) k = Conv(h, w) "
NORM = "BatchNormalization({}, s, c, m, v)"
# ruff: noqa: E501  (one case a line)
CASES: dict[str, tuple[str, str, dict[str, tuple[int, ...]], list[str]]] = {
    "added channels": (IMAGE, CONV + "y = Add(h, a)", {"w": (8, 4, 3, 3), "a": (1, 8, 1, 1)}, ["Conv"]),
    "constant first": (IMAGE, CONV + "y = Sub(a, h)", {"w": (8, 4, 3, 3), "a": (8, 1, 1)}, ["Conv"]),
    "multiplied and added": (IMAGE, CONV + "k = Mul(h, a) l = Div(k, d) y = Sub(l, e)", {"w": (8, 4, 3, 3), "a": (8, 1, 1), "d": (), "e": (1, 8, 1, 1)}, ["Conv"]),
    "normalized, scaled": (IMAGE, CONV + f"k = {NORM.format('h')} l = Mul(k, a) y = Add(l, e)", {"w": (8, 4, 3, 3), "a": (8, 1, 1), "e": (8, 1, 1)}, ["Conv"]),
    "along the rows": (IMAGE, CONV + "y = Mul(h, a)", {"w": (6, 4, 3, 3), "a": (6,)}, ["Conv", "Mul"]),
    "more images": (IMAGE, CONV + "y = Add(h, a)", {"w": (8, 4, 3, 3), "a": (2, 1, 1, 1)}, ["Conv", "Add"]),
    "read twice": (IMAGE, CONV + "k = Mul(h, a) y = Add(h, k)", {"w": (8, 4, 3, 3), "a": (8, 1, 1)}, ["Conv", "Mul", "Add"]),
    "shared weight, factor": (IMAGE, SHARED + "y = Mul(k, a)", {"w": (4, 4, 1, 1), "a": ()}, ["Conv", "Conv", "Mul"]),
    "shared weight, shift": (IMAGE, SHARED + "y = Add(k, a)", {"w": (4, 4, 1, 1), "a": ()}, ["Conv", "Conv"]),
    "transposed, grouped": (IMAGE, "h = ConvTranspose<group=2>(x, w) y = Mul(h, a)", {"w": (4, 3, 3, 3), "a": (6, 1, 1)}, ["ConvTranspose"]),
    "normalized before": (IMAGE, f"h = {NORM.format('x')} y = Conv<group=2>(h, w)", {"w": (8, 2, 3, 3)}, ["Conv"]),
    "normalized before padding": (IMAGE, f"h = {NORM.format('x')} y = Conv<pads=[1,1,1,1]>(h, w)", {"w": (8, 4, 3, 3)}, ["BatchNormalization", "Conv"]),
    "normalized before rows": (ROWS, f"h = {NORM.format('x')} y = Gemm<transB=1>(h, w, b)", {"w": (8, 4), "b": (8,)}, ["Gemm"]),
    "normalized, scaled, alone": (IMAGE, f"h = {NORM.format('x')} k = Mul(h, a) y = Add(k, e)", {"a": (4, 1, 1), "e": (4, 1, 1)}, ["BatchNormalization"]),
    "deep product": (DEEP, "h = MatMul(x, w) y = Mul(h, a)", {"w": (4, 8), "a": (8,)}, ["MatMul"]),
    "deep product, one number": (DEEP, "h = MatMul(x, w) y = Mul(h, a)", {"w": (4, 8), "a": ()}, ["MatMul"]),
    "deep shift": (DEEP, "h = MatMul(x, w) y = Add(h, a)", {"w": (4, 8), "a": (8,)}, ["MatMul", "Add"]),
    "joined, then scaled": (ROWS, "h = MatMul(x, w) k = Add(h, b) y = Mul(k, a)", {"w": (4, 8), "b": (8,), "a": (8,)}, ["Gemm"]),
    "coefficients": (ROWS, "y = Gemm<alpha=0.5, beta=2.0>(x, w, b)", {"w": (4, 8), "b": (1, 8)}, ["Gemm"]),
    "no bias left": (ROWS, "y = Gemm<beta=0.0>(x, w, b)", {"w": (4, 8), "b": (8,)}, ["Gemm"]),
    "one number": (ROWS, "y = Gemm<alpha=0.5, transB=1>(x, w, b)", {"w": (8, 4), "b": ()}, ["Gemm"]),
    "bias of rows": (ROWS, "y = Gemm<beta=0.5>(x, w, b)", {"w": (4, 8), "b": (3, 1)}, ["Gemm"]),
    "sums": (ROWS, "h = Sum(x) k = Sum(h, a, x) y = Sum(k, x)", {"a": (4,)}, ["Add", "Add", "Add"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_outputs_stay(case: str, build: Any, normal: Any) -> None:
    frame, body, sizes, operators = CASES[case]
    weights = {name: normal(*size) for name, size in sizes.items()}
    if "BatchNormalization" in body:
        channels = 8 if "BatchNormalization(h" in body else 4
        weights |= {name: normal(channels) for name in "scm"} | {"v": np.abs(normal(channels)) + 0.5}
    proto = build(frame.format(body), **weights)
    x = normal(*((2, 4, 6, 6) if frame is IMAGE else (3, 4) if frame is ROWS else (2, 3, 4)))
    expected = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    model = compress.load(proto)
    fold(model.ir)
    assert [node.op_type for node in model.graph] == operators
    np.testing.assert_allclose(model.run({"x": x})[0], expected, rtol=1e-4, atol=1e-4)


def test_a_folded_gemm_has_no_coefficients_and_a_vector(build: Any, normal: Any) -> None:
    text = ROWS.format("y = Gemm<alpha=0.5, beta=2.0>(x, w, b)")
    model = compress.load(build(text, w=normal(4, 8), b=np.float32(3)))
    fold(model.ir)
    (gemm,) = model.graph
    assert not {"alpha", "beta"} & gemm.attributes.keys()
    np.testing.assert_array_equal(model.graph.initializers["b"].const_value.numpy(), np.full(8, 6))


def test_a_bias_that_two_layers_share_is_changed_for_one(build: Any, normal: Any) -> None:
    text = ROWS.format("h = Gemm<beta=0.5>(x, w, b) y = Gemm(h, v, b)")
    model = compress.load(build(text, w=normal(4, 4), v=normal(4, 4), b=normal(4)))
    x = normal(3, 4)
    expected = model.run({"x": x})[0]
    fold(model.ir)
    np.testing.assert_allclose(model.run({"x": x})[0], expected, rtol=1e-5, atol=1e-5)


def test_weights_that_a_graph_computes_are_folded_whatever_their_size(build: Any) -> None:
    text = """g (float[N,600] x) => (float[N,600] y) {
        w = ConstantOfShape<value = float[1] {0.5}>(s) v = Mul(w, k) y = MatMul(x, v)
    }"""
    model = compress.load(build(text, s=np.array([600, 600]), k=np.float32(2)))
    fold(model.ir)
    assert [node.op_type for node in model.graph] == ["MatMul"]


def test_codes_stay_codes(build: Any, normal: Any) -> None:
    """Folding what dequantizes a weight would make the file four times as large."""
    text = "g (float[N,64] x) => (float[N,64] y) { f = Cast<to=1>(q) w = Mul(f, k) y = MatMul(x, w) }"
    codes = np.round(normal(64, 64) * 20).astype(np.int8)
    model = compress.load(build(text, q=codes, k=np.float32(0.1)))
    fold(model.ir)
    assert [node.op_type for node in model.graph] == ["Cast", "Mul", "MatMul"]
