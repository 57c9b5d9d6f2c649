"""Normalizations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.table import State, Weight, operator, torch_type


@operator("BatchNormalization")
def batch_normalization(
    x: Tensor,
    scale: Weight,
    bias: Weight,
    mean: State,
    variance: State,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    training: bool,
    outputs: int,
) -> tuple[Tensor, ...]:
    """Normalize each channel, by batch statistics while the module trains, by the stored ones otherwise.

    A training module updates the stored mean and variance in place. ONNX's momentum is the part that
    is kept, torch's the part that is new. A node that is itself in training mode returns the new
    statistics as outputs instead, with the variance of the population as ONNX defines it.
    """
    if outputs == 1 and not training_mode:
        mean, variance = mean.to(scale.dtype), variance.to(scale.dtype)
        return (F.batch_norm(x, mean, variance, scale, bias, training, 1.0 - momentum, epsilon),)
    dims = [dim for dim in range(x.dim()) if dim != 1]
    batch_mean = x.mean(dims).to(mean.dtype)
    batch_variance = x.var(dims, correction=0).to(variance.dtype)
    y = F.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
    new_mean = mean * momentum + batch_mean * (1.0 - momentum)
    return y, new_mean, variance * momentum + batch_variance * (1.0 - momentum)


@operator("InstanceNormalization")
def instance_normalization(x: Tensor, scale: Weight, bias: Weight, *, epsilon: float = 1e-5) -> Tensor:
    """Normalize each channel of each sample."""
    return torch.group_norm(x, x.shape[1], scale, bias, epsilon)


@operator("GroupNormalization", since=21)
def group_normalization(
    x: Tensor, scale: Weight, bias: Weight, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Normalize groups of channels of each sample; one scale and bias a channel."""
    return torch.group_norm(x, num_groups, scale, bias, epsilon)


@operator("GroupNormalization")
def group_normalization_shared(
    x: Tensor, scale: Weight, bias: Weight, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    """Normalize groups of channels; one scale and bias a group (opset 20 and older)."""
    size = x.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(size), bias.repeat_interleave(size)
    return torch.group_norm(x, num_groups, scale, bias, epsilon)


@operator("LayerNormalization")
def layer_normalization(
    x: Tensor,
    scale: Weight,
    bias: Weight | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int,
) -> tuple[Tensor, ...]:
    """Normalize over all dimensions from `axis` on; on request mean and inverse deviation too."""
    axis %= x.dim()
    shape = x.shape[axis:]
    if outputs == 1 and scale.shape == shape and (bias is None or bias.shape == shape):
        return (F.layer_norm(x, shape, scale, bias, epsilon),)
    dims = tuple(range(axis, x.dim()))
    mean = x.mean(dims, keepdim=True)
    inverse = torch.rsqrt(x.var(dims, correction=0, keepdim=True) + epsilon)
    y = (x - mean) * inverse * scale
    return (y if bias is None else y + bias), mean, inverse


@operator("RMSNormalization")
def rms_normalization(
    x: Tensor, scale: Weight, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Divide by the root mean square over all dimensions from `axis` on, in the stash type."""
    dims = tuple(range(axis % x.dim(), x.dim()))
    wide = x if x.dtype == torch.float64 else x.to(torch_type(stash_type))
    normal = wide * torch.rsqrt(wide.square().mean(dims, keepdim=True) + epsilon)
    return normal.to(x.dtype) * scale


@operator("LRN")
def local_response_normalization(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """Divide by a power of the squares summed over `size` neighbouring channels."""
    around = [0, 0] * (x.dim() - 2) + [(size - 1) // 2, size // 2]
    squares = F.pad(x.square(), around).unfold(1, size, 1).sum(-1)
    return x / (bias + alpha / size * squares).pow(beta)


@operator("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Divide by the p-norm along an axis; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """Subtract the mean and divide by the standard deviation over some axes."""
    centred = x - x.mean(tuple(axes), keepdim=True)
    return centred / (centred.square().mean(tuple(axes), keepdim=True).sqrt() + 1e-9)
