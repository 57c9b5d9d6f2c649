"""HQQ: ranges that fit most weights well and sacrifice outliers, found without data.

Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023): minimize
``Σ |w - w'|^p`` with p < 1. A sparse error e takes up the outliers, so that the rest is least squares. The
paper fits a real zero point. Zero points are integers here, so the scale is fitted as well.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from compress.numerics.affine import Quantized, quantize
from compress.numerics.formats import IntegerFormat

STEPS = 20
"""Iterations; the loss settles within ten."""
NORM = 0.7
"""The exponent p, as in the paper."""
PENALTY, GROWTH = 10.0, 1.01
"""The paper's beta, for weights measured in steps of the quantizer, and kappa, its growth in each step."""


def hqq(weight: Tensor, format: IntegerFormat) -> Quantized:
    """Quantize a tensor of any rank for the least p-norm error of its weights.

    Args:
        weight: floating-point tensor.
        format: what the integers can be, of up to 8 bits. Its method is not read: ranges follow the p-norm.

    Raises:
        ValueError: as `quantize`.
    """
    penalty = PENALTY
    start = quantize(weight, replace(format, method="minmax"))
    low, high = format.limits
    rows = format.granularity.rows(weight.float())
    scale, zero_point = start.scale.reshape(-1, 1), start.zero_point.reshape(-1, 1).float()
    best_loss = torch.full_like(scale, torch.inf)
    best_scale, best_zero = scale, zero_point
    for _ in range(STEPS):
        codes = (rows / scale + zero_point).round_().clamp_(low, high)
        error = rows - (codes - zero_point) * scale
        loss = error.abs().pow_(NORM).sum(1, keepdim=True)
        better = loss < best_loss
        best_loss = torch.where(better, loss, best_loss)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero_point, best_zero)
        target = rows - _shrink(error / scale, penalty) * scale
        if not format.symmetric:
            zero_point = (codes - target / scale).mean(1, keepdim=True).round_().clamp_(low, high)
        codes -= zero_point
        product, square = (target * codes).sum(1, keepdim=True), (codes * codes).sum(1, keepdim=True)
        scale = torch.where(product > 0, product / square, scale)
        penalty *= GROWTH
    return quantize(weight, format, scale=best_scale, zero_point=best_zero)


def _shrink(error: Tensor, penalty: float) -> Tensor:
    """Return the generalized soft threshold of the error, the paper's equation for e."""
    size = error.abs()
    return error.sign() * (size - size.clamp(min=1e-8).pow(NORM - 1) / penalty).clamp_(min=0)
