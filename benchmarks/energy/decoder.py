"""Decoders of public language models as graphs: one block and the head, weights without data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

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
    fp8: bool = False
    """Weights of the blocks in 8 bits."""


DECODERS = {
    "Llama-3.1-8B-Instruct": Decoder(32, 4096, 32, 8, 128, 14336, 128256),
    "Llama-3.1-70B-Instruct": Decoder(80, 8192, 64, 8, 128, 28672, 128256),
    "Llama-3.1-405B-Instruct-FP8": Decoder(126, 16384, 128, 8, 128, 53248, 128256, fp8=True),
    "Qwen3-32B": Decoder(64, 5120, 64, 8, 128, 25600, 151936),
    "gemma-3-12b-it": Decoder(48, 3840, 16, 8, 256, 15360, 262208),
    "gemma-3-27b-it": Decoder(62, 5376, 32, 16, 128, 21504, 262208),
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
<float16[{width}, {words}] w = {{0}}> {{ y = MatMul(x, w) }}"""


@cache
def block(name: str) -> ir.Model:
    """Return one block of the decoder; batch, sequence and past are left open."""
    sizes = DECODERS[name]
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
    decoded = ""
    if sizes.fp8:
        decoded = "\n".join(f"{weight} = DequantizeLinear({weight}8, one)" for weight in shapes)
        shapes = {f"{weight}8": shape for weight, shape in shapes.items()}
    names = ("one", "scale", *shapes)
    weights = ", ".join(f"float16[1] {weight} = {{0}}" for weight in names)
    model = ir.from_onnx_text(_BLOCK.format(**vars(sizes), weights=weights, decoded=decoded))
    stored = ir.DataType.FLOAT8E4M3FN if sizes.fp8 else ir.DataType.FLOAT16
    _fill(model, {"one": (), "scale": (sizes.width,)}, ir.DataType.FLOAT16)
    _fill(model, shapes, stored)
    return model


@cache
def head(name: str) -> ir.Model:
    """Return the product with the table of words."""
    sizes = DECODERS[name]
    model = ir.from_onnx_text(
        _HEAD.format(**vars(sizes)).replace(f"[{sizes.width}, {sizes.words}] w", "[1] w")
    )
    _fill(model, {"w": (sizes.width, sizes.words)}, ir.DataType.FLOAT16)
    return model


def _fill(model: ir.Model, shapes: dict[str, tuple[int, ...]], stored: ir.DataType) -> None:
    """Give weights their shapes; one number stands for all of them, so that they take no memory."""
    for name, shape in shapes.items():
        value = model.graph.initializers[name]
        value.const_value = ir.Tensor(np.broadcast_to(np.ones((), stored.numpy()), shape), name=name)
        value.shape, value.dtype = ir.Shape(shape), stored
