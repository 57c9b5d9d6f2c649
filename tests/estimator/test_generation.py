"""Language models: prompt and tokens."""

from __future__ import annotations

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


def test_tokens_read_the_cache() -> None:
    model = ir.from_onnx_text(MODEL)
    short, long = (
        estimate_generation(model, "tpu-v4i", prompt=prompt, tokens=2, sequence="sequence")
        for prompt in (64, 640)
    )
    assert long.token.dram_bytes - short.token.dram_bytes == 2 * 4 * 16 * (640 - 64) * 4
    assert long.prefill.macs == 10 * short.prefill.macs == 640 * 64 * 64
    assert short.total.macs == short.prefill.macs + 2 * short.token.macs


def test_dimensions_must_exist() -> None:
    with pytest.raises(ModelError, match="no open dimension 'seq'; did you mean 'sequence'"):
        estimate_generation(ir.from_onnx_text(MODEL), "tpu-v4i", prompt=1, tokens=1, sequence="seq")
