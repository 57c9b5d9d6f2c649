"""Attention and rotary positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compress.trainable.operators.table import operator, torch_type


def _heads(x: Tensor, count: int | None) -> Tensor:
    """Split [batch, length, width] into [batch, heads, length, width / heads]."""
    if x.dim() == 4:
        return x
    if not count:
        raise NotImplementedError("inputs of three dimensions need the attribute with the number of heads")
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


def _allowed_keys(
    query: Tensor, keys: int, offset: Tensor | int, causal: int, left: int, right: int
) -> Tensor | None:
    """Return which keys each query may attend by its position, or None for all of them."""
    if not causal and left < 0 and right < 0:
        return None
    places = torch.arange(query.shape[2], device=query.device).unsqueeze(1)
    if isinstance(offset, Tensor):
        offset = offset.reshape(-1, 1, 1, 1)
    ahead = torch.arange(keys, device=query.device) - (places + offset)
    allowed = torch.ones_like(ahead, dtype=torch.bool)
    if causal:
        allowed = allowed & (ahead <= 0)
    if left >= 0:
        allowed = allowed & (ahead >= -left)
    if right >= 0:
        allowed = allowed & (ahead <= right)
    return allowed


def _bias(mask: Tensor | None, allowed: list[Tensor], keys: int, like: Tensor) -> Tensor | None:
    """Combine a mask and sets of allowed keys into one addend of the scores."""
    parts = []
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, -torch.inf)
        if mask.shape[-1] < keys:
            mask = torch.nn.functional.pad(mask, (0, keys - mask.shape[-1]), value=-torch.inf)
        parts.append(mask)
    parts += [torch.zeros_like(part, dtype=like.dtype).masked_fill(~part, -torch.inf) for part in allowed]
    return sum(parts[1:], parts[0]) if parts else None


@operator("Attention")
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scaled dot-product attention with grouped heads, cache, soft cap, masks and windows.

    Returns the output, the keys and values with the past before them, and the scores at the stage
    that `qk_matmul_output_mode` names. A query that may attend nothing gives zeros.
    """
    flat = query.dim() == 3
    query, key, value = _heads(query, q_num_heads), _heads(key, kv_num_heads), _heads(value, kv_num_heads)
    if past_key is not None and past_value is not None:
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
    present = key, value
    keys = key.shape[2]
    offset: Tensor | int = 0
    allowed = []
    if past_key is not None:
        offset = past_key.shape[2]
    elif lengths is not None:
        offset = lengths - query.shape[2]
    if lengths is not None:
        allowed.append((torch.arange(keys, device=key.device) < lengths.unsqueeze(1))[:, None, None])
    by_place = _allowed_keys(query, keys, offset, is_causal, left_window_size, right_window_size)
    if by_place is not None:
        allowed.append(by_place)
    bias = _bias(mask, allowed, keys, query)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    root = math.sqrt(1.0 / math.sqrt(query.shape[3]) if scale is None else scale)
    stages = _scores(query * root, key * root, bias, softcap, softmax_precision)
    result = stages[3] @ value
    if flat:
        result = result.transpose(1, 2).flatten(2)
    return result, *present, stages[qk_matmul_output_mode]


def _scores(
    query: Tensor, key: Tensor, bias: Tensor | None, softcap: float, precision: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the scores raw, capped, biased, and as probabilities."""
    raw = query @ key.transpose(2, 3)
    capped = torch.tanh(raw / softcap) * softcap if softcap else raw
    biased = capped if bias is None else capped + bias
    wide = biased if precision is None else biased.to(torch_type(precision))
    chances = torch.softmax(wide, -1).to(query.dtype)
    if bias is not None:
        chances = chances.masked_fill(bias.amax(-1, keepdim=True) == -torch.inf, 0.0)
    return raw, capped, biased, chances


@operator("RotaryEmbedding")
def rotary_embedding(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Rotate pairs of features by angles that grow with the position."""
    heads = _heads(x, num_heads)
    if positions is not None:
        cosines, sines = cosines[positions], sines[positions]
    cosines, sines = cosines.unsqueeze(1), sines.unsqueeze(1)
    width = rotary_embedding_dim or heads.shape[3]
    turned, rest = heads[..., :width], heads[..., width:]
    first, second = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    real, imaginary = cosines * first - sines * second, sines * first + cosines * second
    if interleaved:
        turned = torch.stack([real, imaginary], -1).flatten(-2)
    else:
        turned = torch.cat([real, imaginary], -1)
    result = torch.cat([turned, rest], -1)
    return result if x.dim() == 4 else result.transpose(1, 2).flatten(2)
