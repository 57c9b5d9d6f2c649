"""What int8-static reports as integers is what ONNX Runtime computes in integers, graph by graph."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import compress
from compress.cpu import saturates
from compress.graph import facts
from compress.graph.optimized import as_run
from compress.passes import Int8Static

IMAGE = "g (float[N,8,8,8] x) => (float[N,C,H,W] y) {{ {} }}"
ROWS = "g (float[N,32] x) => (float[N,M] y) {{ {} }}"
CONV = "<pads=[1,1,1,1]>"
SHUFFLE = "h = Reshape(k, r) t = Transpose<perm=[0,2,1,3,4]>(h) s = Reshape(t, f) "
FOUR = {"w": (8, 8, 3, 3), "v": (8, 8, 3, 3), "c": (8,), "d": (8,)}
LINEAR = {"w": (32, 32), "v": (32, 8), "c": (32,), "d": (8,)}
NORM = {"s": (8,), "b": (8,), "m": (8,), "n": (8,)}
# ruff: noqa: E501  (one graph a line)
GRAPHS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "clip": (IMAGE, f"a = Conv{CONV}(x, w, c) k = Clip(a, lo, hi) y = Conv{CONV}(k, v, d)", FOUR | {"lo": -1.0, "hi": 1.0}, 2),
    "clip of odd ends": (IMAGE, f"a = Conv{CONV}(x, w, c) k = Clip(a, lo, hi) y = Conv{CONV}(k, v, d)", FOUR | {"lo": -0.37, "hi": 1.3}, 2),
    "clip above zero": (IMAGE, f"a = Conv{CONV}(x, w, c) k = Clip(a, lo, hi) y = Conv{CONV}(k, v, d)", FOUR | {"lo": 0.5, "hi": 6.0}, 1),
    "product, clip": (ROWS, "a = Gemm(x, w, c) k = Clip(a, lo, hi) y = Gemm(k, v, d)", LINEAR | {"lo": -1.0, "hi": 1.0}, 2),
    "coefficients": (ROWS, "a = Gemm<alpha=0.5, beta=2.0>(x, w, c) k = Relu(a) y = Gemm<alpha=0.5>(k, v, d)", LINEAR, 2),
    "bias of one number": (ROWS, "a = Gemm(x, w, c) k = Relu(a) y = Gemm(k, v, d)", LINEAR | {"c": 0.3, "d": (1, 8)}, 2),
    "bias of each row": (ROWS, "a = Gemm(x, w, c) y = Gemm(a, v, d)", LINEAR | {"c": (4, 1)}, 1),
    "shared": (IMAGE, f"a = Conv{CONV}(x, w, c) k = Relu(a) y = Conv{CONV}(k, w, d)", FOUR, 2),
    "shared with arithmetic": (IMAGE, f"a = Conv{CONV}(x, w, c) q = ReduceMean(w) k = Add(a, q) y = Conv{CONV}(k, v, d)", FOUR, 2),
    "split": (IMAGE, f"a = Conv{CONV}(x, w, c) k, l = Split<axis=1, num_outputs=2>(a) i = Conv{CONV}(k, p) j = Conv{CONV}(l, p) y = Concat<axis=1>(i, j)", FOUR | {"p": (4, 4, 3, 3)}, 3),
    "parts of unlike ranges": (IMAGE, f"a = Conv{CONV}(x, w, c) q = Relu(a) k = Mul(q, z) l = Conv{CONV}(x, v, d) m = Concat<axis=1>(q, l) y = Conv{CONV}(m, p)", FOUR | {"z": 9.0, "p": (8, 16, 3, 3)}, 3),
    "shuffle": (IMAGE, f"a = Conv{CONV}(x, w, c) k = Relu(a) {SHUFFLE} y = Conv{CONV}(s, v, d)", FOUR | {"r": [0, 2, 4, 8, 8], "f": [0, 8, 8, 8]}, 2),
    "sum": (IMAGE, f"a = Conv{CONV}(x, w, c) k = Conv{CONV}(a, v, d) l = Sum(a, k, x) m = Relu(l) y = Conv{CONV}(m, p)", FOUR | {"p": (8, 8, 3, 3)}, 3),
    "constant added": (IMAGE, f"a = Conv{CONV}(x, w) k = Add(a, e) l = Relu(k) y = Conv{CONV}(l, v, d)", FOUR | {"e": (1, 8, 1, 1)}, 2),
    "hard swish": (IMAGE, f"a = Conv{CONV}(x, w, c) k = HardSwish(a) y = Conv{CONV}(k, v, d)", FOUR, 2),
    "hard sigmoid": (IMAGE, f"a = Conv{CONV}(x, w, c) p = GlobalAveragePool(a) e = Conv(p, q) g = HardSigmoid(e) k = Mul(a, g) y = Conv{CONV}(k, v, d)", FOUR | {"q": (8, 8, 1, 1)}, 3),
    "activation behind a pool": (IMAGE, f"a = Conv{CONV}(x, w, c) p = MaxPool<kernel_shape=[2,2]>(a) k = Relu(p) y = Conv{CONV}(k, v, d)", FOUR, 2),
    "normalized before": (IMAGE, f"a = Conv{CONV}(x, w, c) k = Concat<axis=1>(a, x) l = BatchNormalization(k, s, b, m, n) r = Relu(l) y = Conv{CONV}(r, p)", FOUR | dict.fromkeys("sbmn", (16,)) | {"p": (8, 16, 3, 3)}, 3),
    "half of the input": (IMAGE, f"k, l = Split<axis=1, num_outputs=2>(x) a = Conv{CONV}(l, p) m = Concat<axis=1>(k, a) y = Conv{CONV}(m, v, d)", FOUR | {"p": (4, 4, 3, 3)}, 2),
    "matrix and sum": (ROWS, "a = MatMul(x, w) k = Add(a, x) l = Relu(k) y = MatMul(l, v)", LINEAR, 2),
    "activation put out": (ROWS, "a = Gemm(x, w, c) y = Relu(a)", LINEAR, 1),
    "deep product of known size": ("g (float[4,3,32] x) => (float[4,3,M] y) {{ {} }}", "a = MatMul(x, w) k = Add(a, c) l = Relu(k) y = MatMul(l, v)", LINEAR, 2),
    "deep product": ("g (float[N,3,32] x) => (float[N,3,M] y) {{ {} }}", "a = MatMul(x, w) k = Add(a, c) l = Relu(k) y = MatMul(l, v)", LINEAR, 2),
}  # fmt: skip


@pytest.mark.parametrize("bits", [7, 8], ids=["without VNNI", "with VNNI"])
@pytest.mark.parametrize("case", GRAPHS)
def test_claims_are_what_runs(case: str, bits: Any, build: Any, normal: Any) -> None:
    frame, body, given, integer = GRAPHS[case]
    weights = {
        name: normal(*size) * 0.3
        if isinstance(size, tuple)
        else np.array(size, np.float32 if isinstance(size, float) else np.int64)
        for name, size in given.items()
    }
    if "n" in weights:
        weights["n"] = np.abs(weights["n"]) + 0.5
    opset = 18
    shape = (4, 8, 8, 8) if frame is IMAGE else (4, 32) if frame is ROWS else (4, 3, 32)
    x = normal(*shape)
    model = compress.load(build(frame.format(body), opset=opset, **weights), calibration=[{"x": x}])
    small = Int8Static(weight_bits=bits)(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    run = [facts.of(node) for node in as_run(small.ir).graph]
    claimed = [change.layer for change in small.changes if "activations" in change.action]
    assert sum(operator.multiplies_codes for operator in run) == len(claimed) == integer
    if bits == 8 and saturates():
        return  # the kernels are the same, their sums are not right on this machine
    expected = model.run({"x": x})[0]
    error = np.linalg.norm(small.run({"x": x})[0] - expected) / np.linalg.norm(expected)
    assert error < 0.08, Counter(operator.name for operator in run)
