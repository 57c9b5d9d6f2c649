"""Quantized weights as frozen arithmetic, and the fake quantizers that training puts in their place.

Codes go to floats and nothing is learnt about them, for rounding has no useful gradient. A fake
quantizer rounds just the same, but lets the gradient pass to what was rounded and to the scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compress.trainable.operators.table import MICROSOFT, TRAINING, Weight, operator, torch_type


def _spread(scale: Tensor, like: Tensor, axis: int, block_size: int) -> Tensor:
    """Give each element of `like` its scale: for the tensor, for a slice, or for a block."""
    if scale.numel() == 1 and not block_size:
        return scale.reshape(())
    if not block_size:
        return scale.reshape([-1 if dim == axis % like.dim() else 1 for dim in range(like.dim())])
    return scale.repeat_interleave(block_size, axis).narrow(axis, 0, like.shape[axis])


@operator("DequantizeLinear")
def dequantize_linear(
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """``(codes - zero point) scale``."""
    dtype = torch_type(output_dtype) if output_dtype else scale.dtype
    steps = codes.to(scale.dtype)
    if zero_point is not None:
        steps = steps - _spread(zero_point.to(scale.dtype), codes, axis, block_size)
    return (steps * _spread(scale, codes, axis, block_size)).to(dtype)


@operator("QuantizeLinear")
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """``round(x / scale) + zero point``, limited to the range of the codes."""
    if zero_point is not None:
        dtype = zero_point.dtype
    else:
        dtype = torch_type(output_dtype) if output_dtype else torch.uint8
    exact = x.to(torch_type(precision) if precision else scale.dtype)
    steps = torch.round(exact / _spread(scale.to(exact.dtype), x, axis, block_size))
    if zero_point is not None:
        steps = steps + _spread(zero_point.to(steps.dtype), x, axis, block_size)
    limits = torch.iinfo(dtype)
    return steps.clamp(limits.min, limits.max).to(dtype)


@operator("FakeQuantize", domain=TRAINING)
def fake_quantize(
    x: Tensor, log_scale: Tensor, *, low: int, high: int, axis: int = 0, block_size: int = 0
) -> Tensor:
    """`x` rounded to steps of the scale and limited to ``[low, high]`` of them, with a gradient.

    The gradient passes straight through the rounding and stops outside the range; the scale's is the
    one of Esser et al., "Learned step size quantization", 2020, and its logarithm is learnt, which
    keeps it positive and makes one learning rate fit scales of every size.

    Args:
        x: values, on a grid around zero: `low` and `high` are counted from the zero point.
        log_scale: natural logarithms of the scales, in one row.
        low: lowest step.
        high: highest step.
        axis: what the scales run along, if there are several.
        block_size: elements of `axis` that share a scale; 0 for one scale each.
    """
    scale = log_scale.exp()
    if block_size:
        shape = list(x.shape)
        shape[axis] = -(-shape[axis] // block_size)
        scale = scale.reshape(shape)
    scale = _spread(scale, x, axis, block_size)
    steps = x / scale
    rounded = steps + (steps.round() - steps).detach()
    return rounded.clamp(low, high) * scale


@operator("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits(
    x: Tensor,
    codes: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    group_index: Tensor | None = None,
    bias: Weight | None = None,
    *,
    K: int,  # noqa: N803  (the attribute's name)
    N: int,  # noqa: N803
    accuracy_level: int = 0,
    bits: int = 4,
    block_size: int,
) -> Tensor:
    """Product with a matrix [N, K] packed into codes of `bits` [N, blocks, block_size bits / 8]."""
    if group_index is not None:
        raise NotImplementedError("reordered groups (g_idx) are not supported")
    blocks = -(-K // block_size)
    steps = _unpack(codes.reshape(N, blocks, -1), bits, block_size).to(scales.dtype)
    if zero_points is None:
        middle: Tensor | int = 1 << (bits - 1)
    elif zero_points.is_floating_point():
        middle = zero_points.reshape(N, blocks, 1)
    else:
        middle = _unpack(zero_points.reshape(N, -1), bits, blocks).unsqueeze(2)
    weight = ((steps - middle) * scales.reshape(N, blocks, 1)).reshape(N, -1)[:, :K]
    return torch.nn.functional.linear(x, weight.to(x.dtype), bias)


def _unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return `count` codes of the last dimension's bytes, lowest bits first."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    codes = (packed.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    return codes.flatten(-2)[..., :count]
