"""Language models: prompt and tokens."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from compress.errors import ModelError
from compress.estimator.generation import estimate_generation

MODEL = """<ir_version: 10, opset_import: ["": 21]>
g (float[1, sequence, 64] x, float[1, 4, past, 16] k, float[1, 4, past, 16] v, float[64, 64] w)
    => (float[1, 4, sequence, 16] y)
<int64[4] heads = {1, -1, 4, 16}> {
    q = MatMul(x, w)
    split = Reshape(q, heads)
    qh = Transpose <perm = [0, 2, 1, 3]> (split)
    kt = Transpose <perm = [0, 1, 3, 2]> (k)
    scores = MatMul(qh, kt)
    p = Softmax(scores)
    y = MatMul(p, v)
}"""

PLAIN = """<ir_version: 10, opset_import: ["": 21]>
g (float[1, sequence, 64] x) => (float[1, sequence, 64] y)
<float[64, 64] wq = {0}, float[64, 64] wk = {0}, float[64, 64] wv = {0}> {
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    v = MatMul(x, wv)
    kt = Transpose <perm = [0, 2, 1]> (k)
    scores = MatMul(q, kt)
    p = Softmax(scores)
    y = MatMul(p, v)
}"""
GROWING = """<ir_version: 10, opset_import: ["": 21]>
g (float[1, sequence, 64] q, float[1, sequence, 64] k, float[1, past, 64] past_k)
    => (float[1, sequence, all] y, float[1, all, 64] present_k) {
    present_k = Concat <axis = 1> (past_k, k)
    y = Einsum <equation = "bsd,btd->bst"> (q, present_k)
}"""


def test_tokens_read_the_cache() -> None:
    model = ir.from_onnx_text(MODEL)
    short, long = (estimate_generation(model, "tpu-v4i", prompt=prompt, tokens=2) for prompt in (64, 640))
    assert long.token.dram_bytes - short.token.dram_bytes == 2 * 4 * 16 * (640 - 64) * 2  # as bf16
    assert long.prefill.macs == 10 * short.prefill.macs == 640 * 64 * 64
    assert short.total.macs == short.prefill.macs + 2 * short.token.macs


def test_dimensions_must_exist() -> None:
    with pytest.raises(ModelError, match="no open dimension 'seq'; did you mean 'sequence'"):
        estimate_generation(ir.from_onnx_text(MODEL), "tpu-v4i", prompt=1, tokens=1, sequence="seq")


def test_a_graph_without_a_cache_is_read_row_by_row() -> None:
    cached, plain = ir.from_onnx_text(MODEL), ir.from_onnx_text(PLAIN)
    for value in plain.graph.initializers.values():
        value.const_value = ir.tensor(np.ones((64, 64), np.float32), name=value.name)
    with_cache, without = (
        estimate_generation(model, "tpu-v4i", prompt=256, tokens=1).token for model in (cached, plain)
    )
    # Keys and values are made of the new token as well.
    assert without.macs == with_cache.macs + 2 * 64 * 64
    few, many = (estimate_generation(plain, "tpu-v4i", prompt=n, tokens=2).token for n in (255, 511))
    assert many.dram_bytes - few.dram_bytes == pytest.approx(2 * 64 * 256 * 2)


def test_caches_grow_in_place() -> None:
    model = ir.from_onnx_text(GROWING)
    found = estimate_generation(model, "tpu-v4i", prompt=100, tokens=2)
    # One new row of 64 goes in and out; 102 rows are read by the product, and the scores go out.
    assert found.token.dram_bytes == 2 * (64 + 64 + 64 + 102 * 64 + 102)
