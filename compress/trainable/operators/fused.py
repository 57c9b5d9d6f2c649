"""What ONNX Runtime's optimizer, and exporters that aim at it, put in place of several operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Required, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.activation import named_activation
from compress.trainable.operators.attention import attention, rotary_embedding
from compress.trainable.operators.convolution import Sliding, convolution
from compress.trainable.operators.linear import gemm
from compress.trainable.operators.normalization import layer_normalization, rms_normalization
from compress.trainable.operators.table import MICROSOFT, Int, Matrix, Weight, operator

_MASKED = -10000.0
"""What is added to the scores of hidden positions, unless the node says otherwise."""


def _activated(x: Tensor, name: str, numbers: Sequence[float]) -> Tensor:
    """Apply the activation that an attribute names, if any, with as many of the numbers as it takes."""
    if not name:
        return x
    function, defaults = named_activation(name)
    return function(x, *numbers[: len(defaults)])


@operator("FusedConv", domain=MICROSOFT)
def fused_convolution(
    x: Tensor,
    weight: Weight,
    bias: Weight | None = None,
    addend: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    **sliding: Unpack[Sliding],
) -> Tensor:
    """Convolution, plus another value, through an activation."""
    result = convolution(x, weight, bias, group=group, **sliding)
    return _activated(result if addend is None else result + addend, activation, activation_params)


@operator("FusedGemm", domain=MICROSOFT)
def fused_gemm(
    a: Weight,
    b: Weight,
    c: Weight | None = None,
    *,
    activation: str = "",
    activation_alpha: float = 0.0,
    activation_beta: float = 0.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803  (the attribute's name)
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """Gemm through an activation."""
    product = gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    return _activated(product, activation, (activation_alpha, activation_beta))


@operator("FusedMatMul", domain=MICROSOFT)
def fused_matmul(
    a: Matrix,
    b: Matrix,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803  (the attribute's name)
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
) -> Tensor:
    """``alpha a b``, with the last two dimensions of either factor swapped on request."""
    if transBatchA or transBatchB:
        raise NotImplementedError("transposed batches are not supported")
    a = a.transpose(-1, -2) if transA and a.dim() > 1 else a
    b = b.transpose(-1, -2) if transB and b.dim() > 1 else b
    return alpha * torch.matmul(a, b)


@operator("Gelu", domain=MICROSOFT)
def gelu(x: Tensor) -> Tensor:
    """``x Phi(x)``, exact."""
    return F.gelu(x)


@operator("BiasGelu", domain=MICROSOFT)
def bias_gelu(x: Tensor, bias: Weight) -> Tensor:
    """Exact Gelu of a sum."""
    return F.gelu(x + bias)


@operator("FastGelu", domain=MICROSOFT)
def fast_gelu(x: Tensor, bias: Weight | None = None) -> Tensor:
    """Gelu by tanh, of a sum on request."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT)
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """``x sigmoid(alpha x)``."""
    return x * torch.sigmoid(alpha * x)


@operator("SimplifiedLayerNormalization")
def simplified_layer_normalization(
    x: Tensor, scale: Weight, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Tensor, Tensor]:
    """RMSNormalization under the name it has in ONNX Runtime, and the inverse root mean square."""
    dims = tuple(range(axis % x.dim(), x.dim()))
    inverse = torch.rsqrt(x.square().mean(dims, keepdim=True) + epsilon)
    return rms_normalization(x, scale, axis=axis, epsilon=epsilon, stash_type=stash_type), inverse


@operator("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    scale: Weight,
    shift: Weight | None = None,
    bias: Weight | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, ...]:
    """LayerNormalization of a residual sum; mean, inverse deviation, and the sum itself."""
    total = x + skip if bias is None else x + skip + bias
    return *layer_normalization(total, scale, shift, epsilon=epsilon, outputs=3), total


@operator("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(
    x: Tensor, skip: Tensor, scale: Weight, bias: Weight | None = None, *, epsilon: float = 1e-12
) -> tuple[Tensor, None, Tensor, Tensor]:
    """RMSNormalization of a residual sum; nothing, the inverse root mean square, and the sum itself."""
    total = x + skip if bias is None else x + skip + bias
    result, inverse = simplified_layer_normalization(total, scale, epsilon=epsilon)
    return result, None, inverse, total


@operator("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(
    tokens: Tensor,
    segments: Tensor | None,
    words: Weight,
    places: Weight,
    segment_words: Weight | None,
    scale: Weight,
    shift: Weight,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalized sum of BERT's embeddings; how many tokens each mask shows; the sum itself."""
    if positions is None:
        positions = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
    total = words[tokens] + places[positions]
    if segments is not None and segment_words is not None:
        total = total + segment_words[segments]
    shown = torch.zeros_like(tokens) if mask is None else mask
    normal = layer_normalization(total, scale, shift, epsilon=epsilon, outputs=1)[0]
    return normal, shown.sum(1).int(), total


@operator("RotaryEmbedding", domain=MICROSOFT)
def rotary_by_position(
    x: Tensor,
    positions: Tensor,
    cosines: Tensor,
    sines: Tensor,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    """RotaryEmbedding with a position for each token, or for the first one only."""
    length = x.shape[1] if x.dim() == 3 else x.shape[2]
    if positions.numel() == 1:
        positions = positions.reshape(1, 1) + torch.arange(length, device=x.device)
    heads = num_heads or x.shape[-1] // (2 * cosines.shape[-1])
    return rotary_embedding(
        x,
        cosines,
        sines,
        positions.expand(x.shape[0], length),
        interleaved=interleaved,
        num_heads=heads,
        rotary_embedding_dim=rotary_embedding_dim,
    )


class Masked(TypedDict, total=False):
    """Attributes of attention with a mask."""

    mask_filter_value: float
    num_heads: Required[int]
    scale: float
    unidirectional: int


def _hidden(mask: Tensor | None, bias: Tensor | None, keys: int, value: float, like: Tensor) -> Tensor | None:
    """Return what to add to the scores: `value` where a mask or a count of keys hides a key, plus a bias."""
    if mask is None:
        return bias
    if mask.dim() == 1 and mask.shape[0] == like.shape[0]:
        mask = torch.arange(keys, device=mask.device) < mask.unsqueeze(1)
    if mask.dim() not in (2, 3):
        raise NotImplementedError(f"a mask of shape {list(mask.shape)} is not supported")
    addend = (mask == 0).to(like.dtype) * value
    addend = addend[:, None, None] if mask.dim() == 2 else addend[:, None]
    return addend if bias is None else addend + bias


def _masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: tuple[Tensor | None, Tensor | None],
    mask: Tensor | None,
    addend: Tensor | None,
    settings: Masked,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return attention with a mask of ONNX Runtime's, and keys and values with the past before them."""
    keys = key.shape[-2] + (0 if past[0] is None else past[0].shape[2])
    heads = settings["num_heads"]
    return attention(
        query,
        key,
        value,
        _hidden(mask, addend, keys, settings.get("mask_filter_value", _MASKED), query),
        *past,
        is_causal=settings.get("unidirectional", 0),
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=settings.get("scale") or None,
    )[:3]


@operator("Attention", domain=MICROSOFT)
def self_attention(
    x: Tensor,
    weight: Weight,
    bias: Weight | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    addend: Tensor | None = None,
    *,
    qkv_hidden_sizes: Sequence[int] = (),
    **settings: Unpack[Masked],
) -> tuple[Tensor, Tensor]:
    """Self-attention with its projections in one matrix; keys and values with the past before them."""
    projected = torch.matmul(x, weight)
    projected = projected if bias is None else projected + bias
    sizes = list(qkv_hidden_sizes) or [weight.shape[1] // 3] * 3
    query, key, value = torch.split(projected, sizes, 2)
    before = (None, None) if past is None else (past[0], past[1])
    result, keys, values = _masked_attention(query, key, value, before, mask, addend, settings)
    # Keys and values go out as one tensor, which takes heads of one width.
    return result, torch.stack([keys, values]) if keys.shape == values.shape else keys


@operator("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Weight | None = None,
    mask: Tensor | None = None,
    addend: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    **settings: Unpack[Masked],
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of projected values; keys and values with the past before them."""
    if key is None or query.dim() != 3 or key.dim() == 5:
        raise NotImplementedError("queries, keys and values packed in one tensor are not supported")
    if bias is not None:
        width = query.shape[2]
        first, second, third = torch.split(bias, [width, width, bias.shape[0] - 2 * width])
        query = query + first
        key, value = (key + second, value + third) if key.dim() == 3 else (key, value)
    return _masked_attention(query, key, value, (past_key, past_value), mask, addend, settings)


@operator("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    last_places: Tensor,
    total: Int,
    cosines: Tensor | None = None,
    sines: Tensor | None = None,
    *,
    do_rotary: int = 0,
    kv_num_heads: int,
    local_window_size: int = -1,
    num_heads: int,
    rotary_interleaved: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal attention with fewer heads of keys and values, a cache, and rotary positions.

    The sequences of a batch may differ in length only where there is no past.
    """
    if key is None or value is None:
        size = query.shape[2] // (num_heads + 2 * kv_num_heads)
        query, key, value = torch.split(query, [size * num_heads, *[size * kv_num_heads] * 2], 2)
    length = query.shape[1]
    past = total - length
    if past and bool((last_places != total - 1).any()):
        raise NotImplementedError("pasts of different lengths in one batch are not supported")
    if do_rotary and cosines is not None and sines is not None:
        start = torch.tensor([past], device=query.device)
        query, key = (
            rotary_by_position(part, start, cosines, sines, interleaved=rotary_interleaved, num_heads=heads)
            for part, heads in ((query, num_heads), (key, kv_num_heads))
        )
    return attention(
        query,
        key,
        value,
        None,
        None if past_key is None else past_key[:, :, :past],
        None if past_value is None else past_value[:, :, :past],
        is_causal=1,
        kv_num_heads=kv_num_heads,
        left_window_size=local_window_size - 1 if local_window_size > 0 else -1,
        q_num_heads=num_heads,
        scale=scale or None,
        softcap=softcap,
    )[:3]
