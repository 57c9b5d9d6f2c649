"""HQQ against rounding to nearest, where a few weights are far out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compress.numerics.affine import Quantized, quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis, PerGroup, PerTensor
from compress.numerics.hqq import hqq


def heavy(features: int = 128, outputs: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(features, outputs, generator=generator)
    return weight * (1 + 3 * (torch.rand(features, outputs, generator=generator) < 0.02))


def p_norm(weight: Tensor, q: Quantized) -> float:
    return float((q.dequantize() - weight).abs().pow(0.7).sum())


@pytest.mark.parametrize("granularity", [PerTensor(), PerAxis(1), PerGroup(32, 0), PerGroup(48, 0)])
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_and_outputs_are_nearer_than_after_rounding(granularity, bits, symmetric) -> None:
    weight = heavy()
    nearest = quantize(weight, IntegerFormat(bits, granularity, symmetric=symmetric, signed=False))
    found = hqq(weight, IntegerFormat(bits, granularity, symmetric=symmetric, signed=False))
    assert p_norm(weight, found) < 0.97 * p_norm(weight, nearest)
    inputs = torch.randn(64, len(weight), generator=torch.Generator().manual_seed(1))
    errors = [(inputs @ (q.dequantize() - weight)).square().mean() for q in (found, nearest)]
    assert errors[0] < errors[1]


def test_zero_points_are_integers_within_the_range() -> None:
    q = hqq(heavy() + 0.5, IntegerFormat(4, PerGroup(32, 0), symmetric=False, signed=False))
    assert q.zero_point.dtype == torch.uint8
    assert q.zero_point.max() <= 15


@pytest.mark.parametrize("symmetric", [True, False])
def test_zero_and_constant_channels(symmetric) -> None:
    weight = torch.zeros(16, 3)
    weight[:, 1] = 2.0
    q = hqq(weight, IntegerFormat(4, PerAxis(1), symmetric=symmetric))
    torch.testing.assert_close(q.dequantize(), weight)
    assert torch.isfinite(q.scale).all()
