"""Codes chosen for their length: never longer than asked, and closer than plain rounding at that length."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.numerics.affine import quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.gptq import Hessian
from compress.numerics.granularity import PerAxis
from compress.numerics.rate import LARGEST, PricedWeight, cheapest, code_lengths, code_to_rate, entropy


def laplacian(k, n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).laplace(size=(k, n)).astype(np.float32))


def restored(coded):
    return coded.codes * coded.scale


def test_entropy_of_known_distributions():
    assert entropy(torch.zeros(100)) == 0
    assert entropy(torch.tensor([])) == 0
    assert entropy(torch.arange(-8, 8)) == pytest.approx(4)
    assert entropy(torch.tensor([1, 1, 1, -3])) == pytest.approx(0.811278, abs=1e-6)


def test_lengths_are_those_of_a_complete_code():
    lengths = code_lengths(np.array([0, 0, 0, 1, -1, 5], np.float32))
    assert len(lengths) == 2 * LARGEST + 1
    assert (2.0**-lengths).sum() == pytest.approx(1, abs=1e-5)
    assert lengths[LARGEST] < lengths[LARGEST + 1] < lengths[LARGEST + 2]


def test_a_cheaper_code_is_taken_only_where_the_error_allows():
    lengths = code_lengths(np.array([0] * 97 + [1, -1, 2], np.float32))
    found = cheapest(np.array([0.55, 0.97, -0.55, 2.0, 300], np.float32), lengths)
    assert found.tolist() == [0, 1, 0, 2, LARGEST]


@settings(deadline=None, max_examples=20)
@given(rate=st.floats(0.5, 6), k=st.integers(8, 60), n=st.integers(8, 60), seed=st.integers(0, 99))
def test_the_rate_is_kept(rate, k, n, seed):
    weights = [PricedWeight(laplacian(k, n, seed), 1.0), PricedWeight(0.1 * laplacian(n, k, seed + 1), 5.0)]
    total = 2 * k * n
    try:
        found = code_to_rate(weights, rate)
    except ValueError as error:
        assert "cannot be reached" in str(error)
        assert rate * total < 64 + 8 * math.log2(total) + 2 * math.sqrt(total)
        return
    assert sum(coded.bits for coded in found) <= rate * total
    for coded in found:
        assert (coded.codes == coded.codes.round()).all()
        assert coded.codes.abs().max() <= LARGEST


@pytest.mark.parametrize("rate", [2, 3, 4, 5])
def test_at_the_length_of_plain_rounding_the_error_is_smaller(rate):
    weight = laplacian(256, 128) * torch.logspace(-0.5, 0.5, 128)
    plain = quantize(weight, IntegerFormat(rate + 1, PerAxis(1)))
    length = entropy(plain.values) + 32 / 256
    (coded,) = code_to_rate([PricedWeight(weight, 1.0)], length)
    assert (restored(coded) - weight).norm() < 0.9 * (plain.dequantize() - weight).norm()


def test_the_distortion_is_that_of_the_theory():
    """A Gaussian source at 4 bits: 1.53 dB above Shannon's bound (Gish and Pierce, 1968)."""
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((500, 500)).astype(np.float32))
    (coded,) = code_to_rate([PricedWeight(weight, 1.0)], 4)
    noise = 10 * math.log10(float((restored(coded) - weight).square().mean()))
    bound = -6.0206 * coded.bits / weight.numel()
    assert noise - bound == pytest.approx(1.53, abs=0.1)


def test_what_costs_more_is_coded_finer():
    weights = [PricedWeight(laplacian(64, 64), 1.0), PricedWeight(laplacian(64, 64, 1), 16.0)]
    cheap, dear = code_to_rate(weights, 3)
    assert dear.bits - cheap.bits == pytest.approx(2 * 64 * 64, rel=0.1)


def test_feedback_lowers_the_error_of_outputs():
    random = np.random.default_rng(0)
    inputs = torch.from_numpy((random.standard_normal((2000, 8)) @ random.standard_normal((8, 48))
                               + 0.3 * random.standard_normal((2000, 48))).astype(np.float32))  # fmt: skip
    weight, hessian = laplacian(48, 40), Hessian(48)
    hessian.observe(inputs)
    (plain,), (fed,) = (code_to_rate([PricedWeight(weight, 1.0, h)], 3) for h in (None, hessian.matrix()))
    errors = [(inputs @ (restored(coded) - weight)).norm() for coded in (plain, fed)]
    assert errors[1] < 0.7 * errors[0]


def test_one_outlier_does_not_coarsen_all_columns():
    weight = laplacian(512, 16)
    weight[0, 0] = 10_000
    (coded,) = code_to_rate([PricedWeight(weight, 1.0)], 6)
    assert coded.scale.numel() == 16
    assert (restored(coded) - weight)[:, 1:].square().mean() < 0.05


@pytest.mark.parametrize("weight", [torch.zeros(4, 5), torch.full((4, 5), 3.0), torch.tensor([[1e-30]])])
def test_weights_without_spread(weight):
    (coded,) = code_to_rate([PricedWeight(weight, 1.0)], 40)
    torch.testing.assert_close(restored(coded), weight)


def test_refusals():
    with pytest.raises(ValueError, match=r"value nan at index \[0, 1\]"):
        PricedWeight(torch.tensor([[1.0, math.nan]]), 1.0)
    with pytest.raises(ValueError, match="cannot be reached"):
        code_to_rate([PricedWeight(laplacian(4, 4), 1.0)], 1)
    assert code_to_rate([], 3) == []
