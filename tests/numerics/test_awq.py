"""AWQ against a search written out, and against rounding, where inputs have outlier channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compress.numerics.affine import quantize
from compress.numerics.awq import STRENGTHS, activation_scales, awq, output_error
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis, PerGroup


def layer(features: int = 64, outputs: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(features, outputs, generator=generator)
    inputs = torch.randn(400, features, generator=generator)
    inputs[:, ::16] *= 30
    return weight, inputs


@pytest.mark.parametrize("granularity", [PerAxis(1), PerGroup(32, 0)])
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_outputs_are_nearer_where_inputs_have_outlier_channels(granularity, bits, symmetric) -> None:
    weight, inputs = layer()
    hessian, magnitude = inputs.T @ inputs / len(inputs), inputs.abs().mean(0)
    scales, q = awq(weight, hessian, magnitude, IntegerFormat(bits, granularity, symmetric=symmetric))
    nearest = quantize(weight, IntegerFormat(bits, granularity, symmetric=symmetric))
    exact = inputs @ weight
    scaled = ((inputs / scales) @ q.dequantize() - exact).square().mean()
    assert scaled < 0.7 * (inputs @ nearest.dequantize() - exact).square().mean()


def test_the_best_of_all_strengths_is_returned() -> None:
    weight, inputs = layer()
    hessian, magnitude = inputs.T @ inputs / len(inputs), inputs.abs().mean(0)
    scales, q = awq(weight, hessian, magnitude, IntegerFormat(4, PerAxis(1)))
    losses = []
    for strength in STRENGTHS:
        s = magnitude**strength
        s = s / (s.min() * s.max()).sqrt()
        rounded = quantize(weight * s[:, None], IntegerFormat(4, PerAxis(1))).dequantize() / s[:, None]
        losses.append(float((inputs @ (rounded - weight)).square().sum(1).mean()))
    found = output_error(q.dequantize() / scales[:, None] - weight, hessian)
    assert found == pytest.approx(min(losses), rel=1e-3)


def test_even_inputs_and_a_layer_never_reached_leave_scales_at_one() -> None:
    weight, _ = layer()
    scales, q = awq(
        weight, torch.zeros(64, 64), torch.zeros(64), IntegerFormat(4, PerGroup(32, 0), method="mse")
    )
    assert torch.equal(scales, torch.ones(64))
    assert torch.equal(q.values, quantize(weight, IntegerFormat(4, PerGroup(32, 0))).values)
    flat = torch.full((64,), 3.0)
    torch.testing.assert_close(activation_scales(flat, 0.5), torch.ones(64))


def test_features_never_seen_have_scale_one() -> None:
    scales = activation_scales(torch.tensor([0.0, 1.0, 4.0]), 0.5)
    torch.testing.assert_close(scales, torch.tensor([1.0, 0.5**0.5, 2**0.5]))


def test_shapes_must_fit() -> None:
    weight, _ = layer()
    with pytest.raises(ValueError, match=r"magnitude of \[63\]"):
        awq(weight, torch.eye(64), torch.ones(63), IntegerFormat(4, PerAxis(1), method="mse"))
