"""Granularities: the rows of a tensor and back, the shape of scales, and what each refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.numerics.granularity import PerAxis, PerGroup, PerTensor


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    granularity = draw(st.sampled_from([PerTensor(), PerAxis(axis), PerGroup(draw(st.integers(1, 9)), axis)]))
    return torch.arange(1.0, math.prod(shape) + 1).reshape(shape), granularity


@settings(max_examples=100, deadline=None)
@given(cases())
def test_rows_are_undone_and_hold_every_element_once(case):
    tensor, granularity = case
    shape = tuple(tensor.shape)
    rows = granularity.rows(tensor)
    assert rows.shape[0] == math.prod(granularity.scale_shape(shape))
    assert sorted(rows[rows != 0].tolist()) == sorted(tensor.flatten().tolist())
    assert torch.equal(granularity.from_rows(rows, shape), tensor)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_scales_meet_the_elements_of_their_row(case):
    tensor, granularity = case
    shape = tuple(tensor.shape)
    largest = granularity.rows(tensor).amax(1).reshape(granularity.scale_shape(shape))
    expanded = granularity.expand(largest, shape).broadcast_to(shape)
    assert torch.equal(granularity.rows(expanded.contiguous()).amax(1), largest.flatten())
    assert (expanded >= tensor).all()


def test_the_last_group_may_be_shorter():
    rows = PerGroup(3, 0).rows(torch.arange(1.0, 6.0))
    assert rows.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert PerGroup(16, 0).scale_shape((33, 4)) == (3, 4)


@pytest.mark.parametrize("granularity", [PerAxis(2), PerAxis(-3), PerGroup(4, 2)])
def test_axes_outside_of_the_tensor_are_refused(granularity):
    with pytest.raises(ValueError, match=rf"axis {granularity.axis} is outside a tensor of shape \[2, 3\]"):
        granularity.scale_shape((2, 3))


def test_empty_groups_are_refused():
    with pytest.raises(ValueError, match="group size 0"):
        PerGroup(0)
