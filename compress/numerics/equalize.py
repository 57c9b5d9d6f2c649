"""Scales that move range from one tensor to another without changing what a model computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.numerics.affine import quantize, range_to_scale, require_finite
from compress.numerics.granularity import PerAxis

STRENGTHS = tuple(step / 10 for step in range(11))
"""Strengths tried by `search_smoothing`; 0 leaves the activation as it is, 1 flattens it."""

SMALL_ROW = 1e-3
"""Power of a row, over the mean's, below which it counts no more."""


def cross_layer_scales(*ranges: Tensor) -> list[Tensor]:
    """Return what to divide each layer's output channels by, so that all layers' ranges become equal.

    Layer i's outputs (weight and bias) are divided by the i-th result and the inputs of layer i + 1
    are multiplied by it; every layer then has the geometric mean of the ranges. Between the layers
    only functions with ``f(s x) = s f(x)`` for s > 0, such as ReLU, may stand. Nagel et al., "Data-Free
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
    equation 4. With strength 1 every input feature gets the range [-1, 1], which is what a layer
    needs whose features differ by orders of magnitude (input-scale equalization).

    Args:
        activation: [K] largest magnitude of each input feature.
        weight: [K] largest magnitude of the weights of each input feature.
        strength: 0 to 1, the share of the difficulty that moves to the weights.
    """
    live = (activation > 0) & (weight > 0)
    scales = torch.where(live, activation, 1.0).pow(strength)
    return torch.where(live, scales / torch.where(live, weight, 1.0).pow(1 - strength), 1.0)


def search_smoothing(
    weight: Tensor,
    inputs: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    bits: int = 8,
    weight_bits: int = 8,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[float | None, Tensor]:
    """Find the strength of `smooth_scales` with the least error of the layer's outputs.

    Errors count relative to the size of each row's outputs: a few rows with huge values stretch the
    range of all, but what follows normalizes each row. Inputs are quantized per tensor and
    asymmetrically, weights per output channel. Without any smoothing (scales of one) is tried first
    and wins ties.

    Args:
        weight: [K, N]. Layers that share their input are searched together, side by side.
        inputs: [rows, K] of the layer, as they usually are; a few hundred rows do.
        low: [K] lowest value of each input feature, the rarest among them.
        high: [K] highest value.
        bits: of the inputs.
        weight_bits: of the weights.
        strengths: to try.

    Returns:
        The strength, None if no smoothing is best, and the scales [K].

    Raises:
        ValueError: the weight or the inputs hold NaN or infinite values.
    """
    weight, inputs = weight.float(), inputs.float()
    low, high = low.float(), high.float()
    for tensor in (inputs, low, high):
        require_finite(tensor)
    wanted = inputs @ weight
    power = wanted.square().mean(1, keepdim=True)
    power = power.clamp(min=float(power.mean()) * SMALL_ROW + torch.finfo(torch.float32).tiny)
    activation, magnitude = torch.maximum(-low, high), weight.abs().amax(1)

    def loss(scales: Tensor) -> float:
        quantized = quantize(weight * scales[:, None], PerAxis(1), weight_bits).dequantize()
        ends = (low / scales).min(), (high / scales).max()
        return float(
            (_fake_quantized(inputs / scales, *ends, bits) @ quantized - wanted).square().div(power).mean()
        )

    best_strength: float | None = None
    best_scales = torch.ones_like(activation)
    least = loss(best_scales)
    for strength in strengths:
        scales = smooth_scales(activation, magnitude, strength)
        found = loss(scales)
        if found < least:
            least, best_strength, best_scales = found, strength, scales
    return best_strength, best_scales


def _fake_quantized(inputs: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    highest = (1 << bits) - 1
    scale, zero_point = range_to_scale(low, high, 0, highest, symmetric=False)
    return ((inputs / scale + zero_point).round_().clamp_(0, highest) - zero_point) * scale
