"""Decoders of public language models as graphs: one block and the head, weights without data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class Decoder:
    """Sizes from the model's published configuration."""

    layers: int
    width: int
    heads: int
    cached_heads: int
    head_width: int
    inner: int
    words: int
    stored: Literal["float16", "float8", "int4"] = "float16"
    """How weights are stored: those of the blocks in 8 bits, or all in 4 bits with a scale for 32."""


DECODERS = {
    "Llama-3.1-8B-Instruct": Decoder(32, 4096, 32, 8, 128, 14336, 128256),
    "Llama-3.1-70B-Instruct": Decoder(80, 8192, 64, 8, 128, 28672, 128256),
    "Llama-3.1-405B-Instruct-FP8": Decoder(126, 16384, 128, 8, 128, 53248, 128256, "float8"),
    "Qwen3-32B": Decoder(64, 5120, 64, 8, 128, 25600, 151936),
    "gemma-3-12b-it": Decoder(48, 3840, 16, 8, 256, 15360, 262208),
    "gemma-3-27b-it": Decoder(62, 5376, 32, 16, 128, 21504, 262208),
}
IN_FOUR_BITS = {
    "Llama-3.1-8B": Decoder(32, 4096, 32, 8, 128, 14336, 128256, "int4"),
    "Llama-3.2-3B": Decoder(28, 3072, 24, 8, 128, 8192, 128256, "int4"),
    "Qwen2.5-7B": Decoder(28, 3584, 28, 4, 128, 18944, 152064, "int4"),
}

STORED = {
    "float16": ir.DataType.FLOAT16,
    "float8": ir.DataType.FLOAT8E4M3FN,
    "int4": ir.DataType.INT4,
}
_BLOCK = """<ir_version: 10, opset_import: ["": 23]>
block (float16[batch, sequence, {width}] x, float16[batch, {cached_heads}, past, {head_width}] past_k,
       float16[batch, {cached_heads}, past, {head_width}] past_v)
    => (float16[batch, sequence, {width}] y, float16[batch, {cached_heads}, all, {head_width}] now_k,
        float16[batch, {cached_heads}, all, {head_width}] now_v)
<{weights}> {{
    {decoded}
    n = RMSNormalization <axis = -1> (x, scale)
    q = MatMul(n, wq)
    k = MatMul(n, wk)
    v = MatMul(n, wv)
    a, now_k, now_v = Attention <is_causal = 1, q_num_heads = {heads}, kv_num_heads = {cached_heads}>
        (q, k, v, , past_k, past_v)
    o = MatMul(a, wo)
    r = Add(x, o)
    m = RMSNormalization <axis = -1> (r, scale)
    gate = MatMul(m, wg)
    up = MatMul(m, wu)
    s = Sigmoid(gate)
    g = Mul(gate, s)
    h = Mul(g, up)
    d = MatMul(h, wd)
    y = Add(r, d)
}}"""
_HEAD = """<ir_version: 10, opset_import: ["": 23]>
head (float16[batch, sequence, {width}] x) => (float16[batch, sequence, {words}] y)
<{weights}> {{ {decoded} y = MatMul(x, w) }}"""


@cache
def block(name: str) -> ir.Model:
    """Return one block of the decoder; batch, sequence and past are left open."""
    sizes = _sizes(name)
    queries, cached = sizes.heads * sizes.head_width, sizes.cached_heads * sizes.head_width
    shapes = {
        "wq": (sizes.width, queries),
        "wk": (sizes.width, cached),
        "wv": (sizes.width, cached),
        "wo": (queries, sizes.width),
        "wg": (sizes.width, sizes.inner),
        "wu": (sizes.width, sizes.inner),
        "wd": (sizes.inner, sizes.width),
    }
    return _filled(_BLOCK, sizes, shapes, {"scale": (sizes.width,)})


@cache
def head(name: str) -> ir.Model:
    """Return the product with the table of words."""
    sizes = _sizes(name)
    stored = replace(sizes, stored="float16") if sizes.stored == "float8" else sizes
    return _filled(_HEAD, stored, {"w": (sizes.width, sizes.words)}, {})


def _sizes(name: str) -> Decoder:
    return (DECODERS | IN_FOUR_BITS)[name]


def _filled(
    text: str, sizes: Decoder, shapes: dict[str, tuple[int, int]], floats: dict[str, tuple[int, ...]]
) -> ir.Model:
    """Return a graph with weights of these shapes, as they are stored, and others in 16 bits."""
    codes, others, decoded = dict(shapes), dict(floats), []
    if sizes.stored != "float16":
        codes = {f"{name}c": shape for name, shape in shapes.items()}
        scales = {f"{name}s": (shape[0] // 32, shape[1]) for name, shape in shapes.items()}
        others |= scales if sizes.stored == "int4" else dict.fromkeys(scales, ())
        blocks = "<axis = 0, block_size = 32> " if sizes.stored == "int4" else ""
        decoded = [f"{name} = DequantizeLinear {blocks}({name}c, {name}s)" for name in shapes]
    listed = ", ".join(f"float16[1] {name} = {{0}}" for name in (*codes, *others))
    fields = {**vars(sizes), "weights": listed, "decoded": "\n".join(decoded)}
    model = ir.from_onnx_text(text.format(**fields))
    _fill(model, others, ir.DataType.FLOAT16)
    _fill(model, codes, STORED[sizes.stored])
    return model


def _fill(model: ir.Model, shapes: dict[str, tuple[int, ...]], stored: ir.DataType) -> None:
    """Give weights their shapes; one number stands for all of them, so that they take no memory."""
    for name, shape in shapes.items():
        value = model.graph.initializers[name]
        value.const_value = ir.Tensor(np.broadcast_to(np.ones((), stored.numpy()), shape), name=name)
        value.shape, value.dtype = ir.Shape(shape), stored
