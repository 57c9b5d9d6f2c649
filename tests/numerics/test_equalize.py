"""Moving range between tensors: what is computed stays, what quantization loses shrinks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d, relu

from compress.numerics.affine import quantize
from compress.numerics.equalize import (
    cross_layer_scales,
    search_smoothing,
    smooth_scales,
)
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis, PerTensor


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_two_layers_get_equal_ranges_and_compute_the_same() -> None:
    first, second = random(6, 8) * torch.logspace(-2, 2, 8), random(8, 5, seed=1)
    bias = random(8, seed=2)
    (s,) = cross_layer_scales(first.abs().amax(0), second.abs().amax(1))
    torch.testing.assert_close(s, (first.abs().amax(0) / second.abs().amax(1)).sqrt())
    equal_first, equal_second = first / s, second * s[:, None]
    torch.testing.assert_close(equal_first.abs().amax(0), equal_second.abs().amax(1))
    x = random(10, 6, seed=3)
    torch.testing.assert_close(
        relu(x @ equal_first + bias / s) @ equal_second, relu(x @ first + bias) @ second
    )

    def error(weight: Tensor) -> float:
        return quantize(weight, IntegerFormat(8, PerTensor())).relative_error(weight)

    assert max(error(equal_first / equal_first.abs().amax(0)), error(equal_second)) < 0.01


def test_depthwise_between_two_pointwise_convolutions() -> None:
    spread = torch.logspace(-1.5, 1.5, 6)
    first, middle, last = (
        random(6, 3, 1, 1) * spread[:, None, None, None],
        random(6, 1, 3, 3, seed=1),
        random(4, 6, 1, 1, seed=2),
    )
    s, t = cross_layer_scales(
        first.abs().amax((1, 2, 3)), middle.abs().amax((1, 2, 3)), last.abs().amax((0, 2, 3))
    )
    x = random(2, 3, 5, 5, seed=3)

    def run(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return conv2d(relu(conv2d(relu(conv2d(x, a)), b, groups=6)), c)

    equal = (
        first / s[:, None, None, None],
        middle * (s / t)[:, None, None, None],
        last * t[None, :, None, None],
    )
    torch.testing.assert_close(run(*equal), run(first, middle, last), rtol=1e-4, atol=1e-4)
    ranges = [equal[0].abs().amax((1, 2, 3)), equal[1].abs().amax((1, 2, 3)), equal[2].abs().amax((0, 2, 3))]
    torch.testing.assert_close(ranges[0], ranges[1])
    torch.testing.assert_close(ranges[1], ranges[2])


def test_dead_channels_are_left_alone() -> None:
    (s,) = cross_layer_scales(torch.tensor([0.0, 4.0, 2.0]), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(s, torch.tensor([1.0, 2.0, 1.0]))
    assert smooth_scales(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]), 0.5).tolist() == [1, 1]


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1))
def test_smooth_scales_are_the_published_formula(strength) -> None:
    activation, weight = torch.tensor([0.1, 3.0, 200.0]), torch.tensor([2.0, 0.5, 1e-3])
    expected = [a**strength / w ** (1 - strength) for a, w in zip([0.1, 3, 200], [2, 0.5, 1e-3], strict=True)]
    torch.testing.assert_close(smooth_scales(activation, weight, strength), torch.tensor(expected))


def test_full_strength_gives_every_feature_the_same_range() -> None:
    activation = torch.tensor([1e-3, 1.0, 1e4])
    torch.testing.assert_close(activation / smooth_scales(activation, torch.ones(3), 1.0), torch.ones(3))


def test_rare_rows_stretch_the_range_and_decide_nothing_else() -> None:
    """The range of one huge row counts, its own error does not: the usual rows do."""
    weight, inputs = random(32, 16), random(200, 32, seed=1)
    rare = inputs.abs().amax(0)
    rare[5] = 300
    found = search_smoothing(weight[None], inputs[None], -rare, rare)
    assert found.strength is not None
    assert found.scales.argmax() == 5


def test_searched_strength_repairs_outlier_features_and_nothing_else() -> None:
    weight, inputs = random(32, 16), random(200, 32, seed=1)
    inputs[:, 3] *= 80
    found = search_smoothing(weight[None], inputs[None], *inputs.aminmax(dim=0))
    assert found.strength is not None
    assert found.strength > 0
    wanted = inputs @ weight

    def error(s: Tensor) -> float:
        flat = quantize(inputs / s, IntegerFormat(8, PerTensor(), symmetric=False, signed=False)).dequantize()
        rows = quantize(weight * s[:, None], IntegerFormat(8, PerAxis(1))).dequantize()
        return float((flat @ rows - wanted).square().mean())

    assert error(found.scales) < 0.1 * error(torch.ones(32))
    zeros = search_smoothing(weight[None], inputs[None] * 0, torch.zeros(32), torch.zeros(32))
    assert zeros.strength is None
    assert torch.equal(zeros.scales, torch.ones(32))
    with pytest.raises(ValueError, match="cannot be quantized"):
        search_smoothing(weight[None], inputs[None] / 0, *inputs.aminmax(dim=0))


def test_some_outputs_of_many_tell_about_what_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = random(64, 16) * torch.logspace(0, 2, 16), random(1, 16, 600, seed=1)
    ends = x.amin(0), x.amax(0)
    some = search_smoothing(weight, x[None], *ends)
    monkeypatch.setattr("compress.numerics.equalize.OUTPUTS", 600)
    every = search_smoothing(weight, x[None], *ends)
    assert some.error == pytest.approx(every.error, rel=0.1) and some.error != every.error
