"""GPTQ against the published algorithm written out step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compress.numerics.affine import Quantized, quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.gptq import Hessian, factors, gptq
from compress.numerics.granularity import Granularity, PerAxis, PerGroup, PerTensor


def correlated_inputs(rows: int, features: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator) / features**0.5
    spread = torch.rand(features, generator=generator).mul(3).exp()
    return torch.randn(rows, features, generator=generator) @ (torch.eye(features) + mixing) * spread


def layer(features: int = 48, outputs: int = 20) -> tuple[Tensor, Tensor]:
    weight = torch.randn(features, outputs, generator=torch.Generator().manual_seed(1))
    hessian = Hessian(features)
    hessian.observe(correlated_inputs(300, features))
    return weight, hessian.matrix()


def naive(weight: Tensor, hessian: Tensor, start: Quantized, order: Tensor, damping: float) -> Tensor:
    """Round one feature, spread its error by the inverse Hessian, remove the feature: eq. 2 and 3."""
    shape = tuple(weight.shape)
    scale = start.granularity.expand(start.scale, shape).expand(shape).double()
    zero = start.granularity.expand(start.zero_point, shape).expand(shape).double()
    low, high = start.format.limits
    hessian, weight = hessian.double().clone(), weight.double().clone()
    hessian += torch.eye(shape[0]) * damping * hessian.diagonal().mean()
    inverse = torch.linalg.inv(hessian)
    codes = torch.zeros(shape, dtype=torch.double)
    for k in order.tolist():
        codes[k] = (weight[k] / scale[k] + zero[k]).round().clamp(low, high)
        error = (weight[k] - (codes[k] - zero[k]) * scale[k]) / inverse[k, k]
        weight -= inverse[:, k, None] * error
        inverse -= inverse[:, k, None] * inverse[None, k] / inverse[k, k]
    return codes


@pytest.mark.parametrize("granularity", [PerTensor(), PerAxis(1), PerGroup(16, 0), PerGroup(20, 0)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4])
def test_gives_the_integers_of_the_published_algorithm(granularity: Granularity, symmetric, bits) -> None:
    weight, hessian = layer()
    q = gptq(weight, hessian, IntegerFormat(bits, granularity, symmetric=symmetric, signed=False))
    plain = quantize(weight, IntegerFormat(bits, granularity, symmetric=symmetric, signed=False))
    assert torch.equal(q.scale, plain.scale)
    assert torch.equal(q.zero_point, plain.zero_point)
    order = hessian.diagonal().argsort(descending=True)
    assert torch.equal(q.values.double(), naive(weight, hessian, q, order, damping=0.01))


def output_error(weight: Tensor, hessian: Tensor, q: Quantized) -> float:
    error = q.dequantize() - weight
    return float((error * (hessian @ error)).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_outputs_are_nearer_than_after_rounding_to_nearest(bits) -> None:
    weight, hessian = layer(96, 64)
    nearest = quantize(weight, IntegerFormat(bits, PerGroup(32, 0), method="mse"))
    solved = gptq(weight, hessian, IntegerFormat(bits, PerGroup(32, 0), method="mse"))
    assert output_error(weight, hessian, solved) < 0.7 * output_error(weight, hessian, nearest)


def test_feedback_is_the_unit_triangular_factor() -> None:
    _, hessian = layer()
    unit = factors(hessian, damping=0.0)[0].double()
    assert torch.equal(unit, unit.triu())
    torch.testing.assert_close(unit.diagonal(), torch.ones(len(unit)).double())
    inverse = torch.linalg.inv(unit)
    diagonal = inverse @ hessian.double() @ inverse.T
    torch.testing.assert_close(
        diagonal, diagonal.diagonal().diag(), atol=1e-4 * float(diagonal.max()), rtol=0
    )


def test_hessian_of_parts_is_that_of_the_whole() -> None:
    inputs = correlated_inputs(60, 300)
    hessian = Hessian(300)
    for part in inputs.reshape(3, 4, 5, 300):
        hessian.observe(part)
    assert hessian.rows == 60
    torch.testing.assert_close(hessian.matrix(), inputs.T @ inputs / 60, rtol=1e-4, atol=1e-3)


def test_features_never_seen_are_rounded_to_nearest() -> None:
    weight, hessian = layer()
    hessian[5], hessian[:, 5] = 0, 0
    q = gptq(weight, hessian, IntegerFormat(4, PerAxis(1)))
    assert torch.equal(q.values[5], quantize(weight, IntegerFormat(4, PerAxis(1))).values[5])


def test_a_layer_never_reached_is_rounded_to_nearest() -> None:
    weight, _ = layer()
    q = gptq(weight, Hessian(len(weight)).matrix(), IntegerFormat(4, PerGroup(16, 0), method="mse"))
    assert torch.equal(q.values, quantize(weight, IntegerFormat(4, PerGroup(16, 0))).values)


def test_one_batch_smaller_than_the_layer_is_enough() -> None:
    weight, _ = layer()
    hessian = Hessian(len(weight))
    hessian.observe(correlated_inputs(3, len(weight)))
    q = gptq(weight, hessian.matrix(), IntegerFormat(4, PerAxis(1), method="mse"), damping=0.0)
    assert q.relative_error(weight) < 1


def test_wrong_inputs_say_what_is_wrong() -> None:
    weight, hessian = layer()
    with pytest.raises(ValueError, match=r"Hessian of shape \[47, 47\]"):
        gptq(weight, hessian[:47, :47], IntegerFormat(4, PerTensor(), method="mse"))
    with pytest.raises(ValueError, match="inputs of 3 features where the layer has 48"):
        Hessian(48).observe(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"nan at index \[1, 0\]"):
        Hessian(1).observe(torch.tensor([[0.0], [float("nan")]]))
    with pytest.raises(ValueError, match="not positive definite"):
        gptq(
            weight,
            torch.ones(48, 48) - 100 * (1 - torch.eye(48)),
            IntegerFormat(4, PerTensor(), method="mse"),
        )


def test_a_weight_follows_the_drift_of_its_inputs_as_far_as_damping_lets_it():
    generator = torch.Generator().manual_seed(3)
    original, weight = torch.randn(500, 24, generator=generator), torch.randn(24, 7, generator=generator)
    turn = torch.eye(24) + 0.1 * torch.randn(24, 24, generator=generator)
    hessian = Hessian(24)
    for start in (0, 250):
        rows = original[start : start + 250]
        hessian.observe(rows @ turn, rows)

    def error(found: Tensor) -> float:
        return float((original @ turn @ found - original @ weight).norm() / (original @ weight).norm())

    assert error(hessian.compensated(weight, 1e-6)) < 1e-4 < 0.1 < error(weight)
    assert 0.01 < error(hessian.compensated(weight)) < 0.5 * error(weight)


def test_inputs_that_stay_move_no_weight():
    rows, (weight, _) = correlated_inputs(300, 48), layer()
    seen, unseen = Hessian(48), Hessian(48)
    seen.observe(rows, rows)
    assert torch.equal(seen.compensated(weight), weight)
    assert torch.equal(unseen.compensated(weight), weight)
