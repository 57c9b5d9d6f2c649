"""Scales that move dynamic range from one tensor to another without changing what a model computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.numerics.affine import quantize, range_to_scale, require_finite
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis

STRENGTHS = tuple(step / 10 for step in range(11))
"""Strengths tried by `search_smoothing`; 0 leaves the activation as it is, 1 flattens it."""

OUTPUTS = 512
"""Most outputs of a layer that are compared; every second or third of more tells as much."""
SMALL_ROW = 1e-3
"""Smallest power by which a row's error is divided, relative to the mean power of the rows."""


def cross_layer_scales(*ranges: Tensor) -> list[Tensor]:
    """Return the divisors of each layer's output channels that make the ranges of all layers equal.

    Layer i's outputs (weight and bias) are divided by the i-th result and the inputs of layer i + 1
    are multiplied by it; the range of every layer is then the geometric mean of the ranges. Functions
    between the layers must fulfil ``f(s x) = s f(x)`` for s > 0, as ReLU does. Nagel et al., "Data-Free
    Quantization Through Weight Equalization and Bias Correction" (2019), equation 11; with three
    ranges, the middle one depthwise, the form used for separable convolutions.

    Args:
        ranges: [C] largest magnitude of the weights of each channel, for two or more layers in a row:
            over output channels for the first, input channels for the last, channels if depthwise.

    Returns:
        One [C] fewer than ranges; 1 for channels where a range is zero.
    """
    stacked = torch.stack([item.float() for item in ranges])
    require_finite(stacked)
    live = (stacked > 0).all(0)
    logs = torch.where(live, stacked, 1.0).log()
    # Layer i's range times the division before it, over its own division, is the mean.
    return list((logs - logs.mean(0)).cumsum(0)[:-1].exp())


def smooth_scales(activation: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Return SmoothQuant's scales: ``activation ** strength / weight ** (1 - strength)``, [K].

    Inputs are divided and weight rows multiplied by them. Xiao et al., "SmoothQuant" (2022),
    equation 4. With strength 1, every input feature gets the range [-1, 1], which suits a layer whose
    features differ by orders of magnitude (input-scale equalization).

    Args:
        activation: [K] largest magnitude of each input feature.
        weight: [K] largest magnitude of the weights of each input feature.
        strength: 0 to 1, the share of the range that moves to the weights.
    """
    live = (activation > 0) & (weight > 0)
    scales = torch.where(live, activation, 1.0).pow(strength)
    return torch.where(live, scales / torch.where(live, weight, 1.0).pow(1 - strength), 1.0)


@dataclass(frozen=True, slots=True)
class Smoothing:
    """What `search_smoothing` found.

    Attributes:
        strength: of `smooth_scales`; None if no smoothing is best.
        scales: [channels] that inputs are divided by.
        error: of the layer's outputs, over the error without smoothing.
    """

    strength: float | None
    scales: Tensor
    error: float


def search_smoothing(
    weight: Tensor, inputs: Tensor, low: Tensor, high: Tensor, *, strengths: Sequence[float] = STRENGTHS
) -> Smoothing:
    """Find the strength of `smooth_scales` with the least error of the layer's outputs.

    Each row's error is relative to the mean square of its outputs: a few rows with huge values stretch the
    range of all, but the following layers normalize each row. Inputs are quantized to 8 bits per tensor
    with a zero point, weights to 8 bits per output channel. No smoothing (scales of one) is tried first
    and wins ties.

    Args:
        weight: [groups, features, N], features being taps of a kernel times channels of the group; one
            group and one tap for a linear layer. Layers that share their input are searched together,
            side by side.
        inputs: [groups, rows, features], a sample of the layer's inputs; a few hundred rows are enough.
        low: [channels] lowest value of each channel over all inputs, rare ones included.
        high: [channels] highest value.
        strengths: the strengths to try.

    Raises:
        ValueError: the weight or the inputs hold NaN or infinite values.
    """
    weight, inputs = weight.float(), inputs.float()
    low, high = low.float(), high.float()
    for tensor in (inputs, low, high):
        require_finite(tensor)
    wanted = inputs @ weight
    power = wanted.square().mean((0, 2), keepdim=True)
    power = power.clamp(min=float(power.mean()) * SMALL_ROW + torch.finfo(torch.float32).tiny)
    groups, features, outputs = weight.shape
    tapped = weight.reshape(groups, features * groups // len(low), -1, outputs)
    activation, magnitude = torch.maximum(-low, high), tapped.abs().amax((1, 3)).flatten()
    some = slice(None, None, math.ceil(outputs / OUTPUTS) or None)
    weight, wanted, tapped = (each[..., some] for each in (weight, wanted, tapped))

    def loss(scales: Tensor) -> float:
        spread = scales.reshape(groups, 1, -1).expand(tapped.shape[:3]).reshape(groups, features)
        rows = (weight * spread[:, :, None]).mT
        quantized = quantize(rows.reshape(-1, features), IntegerFormat(8, PerAxis(0))).dequantize()
        ends = (low / scales).min(), (high / scales).max()
        got = _fake_quantized(inputs / spread[:, None], *ends) @ quantized.reshape(rows.shape).mT
        return float((got - wanted).square().div(power).mean())

    plain = loss(torch.ones_like(activation))
    best = Smoothing(None, torch.ones_like(activation), 1.0)
    for strength in strengths if plain > 0 else ():
        scales = smooth_scales(activation, magnitude, strength)
        error = loss(scales) / plain
        if error < best.error:
            best = Smoothing(strength, scales, error)
    return best


def _fake_quantized(inputs: Tensor, low: Tensor, high: Tensor) -> Tensor:
    integers = IntegerFormat(8, symmetric=False, signed=False)
    scale, zero_point = range_to_scale(low, high, integers)
    return ((inputs / scale + zero_point).round_().clamp_(*integers.limits) - zero_point) * scale
