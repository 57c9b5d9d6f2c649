"""GPTQ of many groups at once gives each group what GPTQ gives it alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.numerics.affine import quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.gptq import gptq
from compress.numerics.granularity import PerAxis
from compress.numerics.grouped import gptq_groups

INTEGERS = IntegerFormat(4, PerAxis(1), narrow=True)


def problem(features, outputs, seed):
    """Return a weight [features, outputs] and the second moments of inputs that go together."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(200, features, generator=random) @ torch.randn(features, features, generator=random)
    return torch.randn(features, outputs, generator=random), rows.T @ rows / len(rows)


@settings(deadline=None, max_examples=15)
@given(
    groups=st.integers(1, 3), features=st.integers(2, 12), outputs=st.integers(1, 5), seed=st.integers(0, 99)
)
def test_each_group_gets_what_gptq_gives_it_alone(groups, features, outputs, seed):
    weights, moments = zip(
        *(problem(features, outputs, seed + group) for group in range(groups)), strict=True
    )
    alone = [gptq(weight, each, INTEGERS) for weight, each in zip(weights, moments, strict=True)]
    scales = torch.stack([each.scale[None] for each in alone])
    found = gptq_groups(torch.stack(weights), torch.stack(moments), scales, INTEGERS)
    expected = torch.stack([each.values for each in alone])
    assert float((found != expected).float().mean()) < 0.05  # a rounding boundary may fall either way


def test_the_error_of_outputs_is_below_that_of_rounding():
    weight, moments = problem(32, 16, 0)
    nearest = quantize(weight, INTEGERS)
    codes = gptq_groups(weight[None], moments[None], nearest.scale[None, None], INTEGERS)[0]
    errors = [values.float() * nearest.scale - weight for values in (codes, nearest.values)]
    solved, rounded = (float((error * (moments @ error)).sum()) for error in errors)
    assert solved < 0.6 * rounded


@pytest.mark.parametrize("moments", [torch.zeros(1, 4, 4), -torch.eye(4)[None]])
def test_moments_that_say_nothing_leave_the_nearest_integers(moments):
    weight, _ = problem(4, 3, 0)
    nearest = quantize(weight, INTEGERS)
    found = gptq_groups(weight[None], moments, nearest.scale[None, None], INTEGERS)[0]
    assert torch.equal(found, nearest.values.float())
