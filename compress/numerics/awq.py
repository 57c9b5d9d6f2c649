"""AWQ: weights of important input features are scaled up before rounding, and their inputs scaled down.

Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration" (2023).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from compress.numerics.affine import Quantized, quantize, require_finite
from compress.numerics.formats import IntegerFormat

STRENGTHS = tuple(step / 20 for step in range(20))
"""Exponents of the activation magnitude that are tried; 0 is plain rounding."""


def awq(
    weight: Tensor, hessian: Tensor, magnitude: Tensor, format: IntegerFormat
) -> tuple[Tensor, Quantized]:
    """Search scales s for the least error of the outputs, and quantize ``s * weight``.

    ``s = magnitude ** strength``, normalised so that the geometric mean of its extremes is one; the best
    strength of `STRENGTHS` wins. The layer computes the same if its inputs are divided by s, either in a
    linear operator before it or by one multiplication.

    Args:
        weight: [K, N], K input features. Layers that share their input are searched together, side by side.
        hessian: [K, K], mean of ``x xᵀ`` over the layer's inputs.
        magnitude: [K], mean of ``|x|`` over the layer's inputs.
        format: what the integers can be, of up to 8 bits. The search for s takes ranges from the extremes,
            which is many times faster than the mse search.

    Returns:
        The scales s, [K] float32, all positive, and the quantized ``s * weight``.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.
    """
    features = weight.shape[0]
    if weight.ndim != 2 or magnitude.shape != (features,) or hessian.shape != (features, features):
        raise ValueError(
            f"Hessian of shape {list(hessian.shape)} and magnitude of {list(magnitude.shape)} "
            f"do not fit a weight of {list(weight.shape)}"
        )
    require_finite(hessian)
    require_finite(magnitude)
    weight = weight.float()

    def rounded(scales: Tensor, format: IntegerFormat) -> Quantized:
        importance = (hessian.diagonal() / scales.square())[:, None] if format.method == "mse" else None
        return quantize(weight * scales[:, None], format, importance=importance)

    quick = replace(format, method="minmax")

    def loss(scales: Tensor) -> float:
        return output_error(weight - rounded(scales, quick).dequantize() / scales[:, None], hessian)

    best = min((activation_scales(magnitude, strength) for strength in STRENGTHS), key=loss)
    return best, rounded(best, format)


def activation_scales(magnitude: Tensor, strength: float) -> Tensor:
    """Return ``magnitude ** strength`` over the root of its extremes' product, [K]; 1 where it is zero."""
    seen = magnitude > 0
    if strength == 0 or not seen.any():
        return torch.ones_like(magnitude)
    powered = magnitude.clamp(min=1e-4 * float(magnitude.max())).pow(strength)
    return torch.where(seen, powered / (powered[seen].min() * powered[seen].max()).sqrt(), 1.0)


def output_error(weight_error: Tensor, hessian: Tensor) -> float:
    """Return the mean over inputs of ``|weight_errorᵀ x|²``, summed over outputs: ``trace(Eᵀ H E)``.

    Args:
        weight_error: [K, N].
        hessian: [K, K], mean of ``x xᵀ``.
    """
    return float((weight_error * (hessian @ weight_error)).sum())
