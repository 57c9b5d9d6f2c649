"""Shapes of attention, with the keys and values that it carries from one run to the next."""

from __future__ import annotations

import onnx_ir as ir

from compress.graph.shape_rules.call import Call, Outputs, Rule
from compress.graph.tensor_info import TensorInfo

INT32, FLOAT = ir.DataType.INT32, ir.DataType.FLOAT


def embedding(call: Call) -> Outputs:
    """EmbedLayerNormalization: [batch, tokens, hidden], sums of the mask, and what is normalized."""
    ids, table = call[0], call[2]
    whole = TensorInfo((*ids.shape, table.shape[1]), table.dtype)
    return [whole, TensorInfo(ids.shape[:1], INT32), whole]


def attention(*, typed: int, past: int, shared: bool = False) -> Rule:
    """Attention with its projection: [batch, tokens, width of v], and keys and values on one another."""

    def rule(call: Call) -> Outputs:
        batch, tokens, _ = call[0].shape
        width = _value_width(call)
        heads, before = call.int("num_heads"), call.get(past)
        buffered = shared or call.int("past_present_share_buffer")
        present: tuple[int, ...]
        if before is None:
            present = (2, batch, heads, tokens, width // heads)
        else:
            grown = 0 if buffered else tokens
            present = (*before.shape[:3], before.shape[3] + grown, before.shape[4])
        dtype = call[typed].dtype
        return [TensorInfo((batch, tokens, width), dtype), TensorInfo(present, dtype)]

    return rule


def _value_width(call: Call) -> int:
    """Return the width of v behind the projection of q, k and v in one matrix."""
    widths = call.node.attributes.get_ints("qkv_hidden_sizes", None)
    return widths[2] if widths else call[1].shape[1] // 3


def multi_head_attention(call: Call) -> Outputs:
    """[batch, tokens, width of v], keys and values with the past ones, and the scores.

    Queries, keys and values come apart, each [batch, tokens, width]; packed, [batch, tokens, heads, 3 or 2,
    size]; or, for attention to another sequence, with keys and values as [batch, heads, tokens, size].
    """
    query, key, value, past = call[0], call.get(1), call.get(2), call.get(6)
    heads = call.int("num_heads")
    batch, tokens = query.shape[:2]
    size = query.shape[-1] if len(query.shape) == 5 else query.shape[2] // heads
    others, value_size = tokens, size
    if key is not None and len(key.shape) == 5:
        others = key.shape[1]
    elif key is not None and value is not None and len(key.shape) == 4:
        others, value_size = key.shape[2], value.shape[3]
    elif key is not None and value is not None:
        others, value_size = key.shape[1], value.shape[2] // heads
    total = others + (past.shape[2] if past else 0)
    if past and call.int("past_present_share_buffer"):
        total = past.shape[2]
    shapes = (
        (batch, tokens, heads * value_size),
        (batch, heads, total, size),
        (batch, heads, total, value_size),
        (batch, heads, tokens, total),
    )
    return [TensorInfo(shape, query.dtype) for shape in shapes]


def decoder_attention(call: Call) -> Outputs:
    """DecoderMaskedMultiHeadAttention: one token; keys and values go into the buffers that came in."""
    query, value, past = call[0], call.get(2), call.get(5)
    heads = call.int("num_heads")
    width = query.shape[-1] if value is None or len(value.shape) == 4 else value.shape[-1]
    total = past.shape[2] if past else query.shape[1]
    present = past or TensorInfo((query.shape[0], heads, total, width // heads), query.dtype)
    scores = TensorInfo((query.shape[0], heads, 1, total), query.dtype)
    return [query._replace(shape=(*query.shape[:2], width)), present, call.get(6) or present, scores]


def grouped_attention(call: Call) -> Outputs:
    """[batch, tokens, heads times size], and keys and values: those before and these, or the whole buffer."""
    query, past, total = call[0], call.get(3), call.number(6)
    heads, pairs = call.int("num_heads"), call.int("kv_num_heads")
    batch, tokens, width = query.shape
    size = width // heads if call.get(1) else width // (heads + 2 * pairs)
    before = past.shape[2] if past else 0
    length = before + tokens if total is None else max(before, total)
    present = TensorInfo((batch, pairs, length, size), past.dtype if past else query.dtype)
    return [query._replace(shape=(batch, tokens, heads * size)), present, present]


def packed_attention(call: Call) -> Outputs:
    """PackedAttention: [tokens of all sequences, width of v]."""
    return [call[0]._replace(shape=(call[0].shape[0], _value_width(call)))]


def packed_multi_head_attention(call: Call) -> Outputs:
    """PackedMultiHeadAttention: [tokens of all sequences, width of v]."""
    query, value = call[0], call.get(2)
    width = value.shape[-1] if value else query.shape[1] * query.shape[-1]
    return [query._replace(shape=(query.shape[0], width))]
