"""Sparsity: counts, patterns, and what making up for lost weights is worth."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.numerics.sparsity import keep_largest, sparsegpt, wanda


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.floats(0, 0.99), st.integers(0, 99))
def test_every_output_loses_the_share_of_lowest_score(groups, outputs, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(groups * 4, outputs, generator=generator)
    for group in (None, 4):
        keep = keep_largest(scores, ratio, group).reshape(-1, group or groups * 4, outputs)
        assert (~keep).sum(1).unique().tolist() == [int((group or groups * 4) * ratio + 1e-9)]
        blocks = scores.reshape(keep.shape)
        kept, lost = (torch.where(mask, blocks, fill) for mask, fill in ((keep, 9.0), (~keep, -1.0)))
        assert (kept.amin(1) >= lost.amax(1)).all()


def test_two_of_four():
    keep = keep_largest(torch.tensor([[4.0], [1.0], [3.0], [2.0], [0.0], [9.0], [8.0], [1.0]]), 0.5, 4)
    assert keep[:, 0].tolist() == [True, False, True, False, False, True, True, False]


def test_wanda_weighs_by_the_inputs():
    scores = wanda(torch.tensor([[1.0], [-2.0]]), torch.tensor([16.0, 1.0]))
    assert scores[:, 0].tolist() == [4.0, 2.0]


@pytest.mark.parametrize("group", [None, 4])
def test_making_up_lowers_the_error_of_the_outputs(group):
    torch.manual_seed(0)
    inputs = torch.randn(2000, 16) @ torch.randn(16, 256) + 0.1 * torch.randn(2000, 256)
    weight = torch.randn(256, 24)
    hessian = inputs.T @ inputs / len(inputs)
    made_up = sparsegpt(weight, hessian, 0.5, group)
    plain = weight * keep_largest(wanda(weight, hessian.diagonal()), 0.5, group)
    small = weight * keep_largest(weight.abs(), 0.5, group)
    assert (made_up == 0).float().mean() == 0.5
    errors = [float((inputs @ (w - weight)).norm()) for w in (made_up, plain, small)]
    assert errors[0] < 0.5 * errors[1]
    assert errors[1] <= 1.05 * errors[2]


def test_independent_features_are_chosen_by_size_and_stay_as_they_are():
    weight = torch.tensor([[1.0], [-3.0], [2.0], [0.5]])
    result = sparsegpt(weight, torch.eye(4), 0.5)
    assert result[:, 0].tolist() == pytest.approx([0, -3, 2, 0])
