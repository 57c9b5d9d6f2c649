"""Learned rounding on a linear layer and a convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from compress.numerics.affine import Quantized, quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis
from compress.numerics.rounding import learn_rounding


def linear(inputs: Tensor, weight: Tensor) -> Tensor:
    return inputs @ weight


def convolution(inputs: Tensor, weight: Tensor) -> Tensor:
    return conv2d(inputs, weight, padding=1)


def layer(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if kind == "linear":
        mixing = torch.eye(24) + torch.randn(24, 24, generator=generator) / 24**0.5
        return torch.randn(24, 16, generator=generator), torch.randn(256, 24, generator=generator) @ mixing
    inputs = torch.randn(32, 3, 8, 8, generator=generator).cumsum(2).cumsum(3)
    return torch.randn(6, 3, 3, 3, generator=generator), inputs


@pytest.mark.parametrize(
    ("kind", "forward", "granularity"),
    [("linear", linear, PerAxis(1)), ("convolution", convolution, PerAxis(0))],
)
@pytest.mark.parametrize("symmetric", [True, False])
def test_outputs_are_nearer_on_inputs_never_seen(kind, forward, granularity, symmetric) -> None:
    weight, inputs = layer(kind)
    start = quantize(weight, IntegerFormat(4, granularity, symmetric=symmetric, method="mse"))
    seen, unseen = inputs[::2], inputs[1::2]
    learned = learn_rounding(weight, start, forward, seen, forward(seen, weight), steps=200)

    def error(q: Quantized) -> float:
        return float((forward(unseen, q.dequantize()) - forward(unseen, weight)).square().mean())

    assert error(learned) < 0.85 * error(start)
    shape = tuple(weight.shape)
    step = granularity.expand(start.scale, shape)
    limit = (start.dequantize() - weight).abs().clamp(min=step.abs())  # up or down, nothing further
    assert ((learned.dequantize() - weight).abs() <= limit * 1.0001).all()
    assert torch.equal(learned.scale, start.scale)
    assert learned.values.dtype == start.values.dtype


def test_the_same_seed_gives_the_same_rounding() -> None:
    weight, inputs = layer("linear")
    start = quantize(weight, IntegerFormat(3, PerAxis(1)))
    first, second, other = (
        learn_rounding(weight, start, linear, inputs, inputs @ weight, steps=30, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.values, second.values)
    assert not torch.equal(first.values, other.values)


def test_nothing_to_gain_keeps_the_start() -> None:
    weight, inputs = layer("linear")
    start = quantize(weight, IntegerFormat(8, PerAxis(1)))
    weight = start.dequantize()
    same = learn_rounding(weight, start, linear, inputs, inputs @ weight, steps=1)
    assert torch.equal(same.values, start.values)
    idle = learn_rounding(weight, start, linear, inputs * 0, (inputs @ weight) * 0, steps=1)
    assert torch.equal(idle.values, start.values)


def test_wrong_data_is_refused() -> None:
    weight, inputs = layer("linear")
    start = quantize(weight, IntegerFormat(4, PerAxis(1)))
    with pytest.raises(ValueError, match="256 inputs but 255 targets"):
        learn_rounding(weight, start, linear, inputs, (inputs @ weight)[1:])
    inputs[3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"index \[3, 4\]"):
        learn_rounding(weight, start, linear, inputs, inputs @ weight)
