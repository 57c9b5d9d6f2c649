"""Index sets: equal axes keep the same indices whatever they are made of."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.prune.axes import (
    Axis,
    concatenation,
    equate,
    equate_products,
    equate_sums,
    kept,
    positions,
    product,
)


def masks_for(axes, seed):
    """Random masks for every leaf that may lose indices."""
    rng = np.random.default_rng(seed)
    leaves = {leaf for axis in axes for leaf in axis.leaves() if not leaf.pinned and leaf.size > 1}
    return {leaf: rng.random(leaf.size) < 0.6 for leaf in leaves}


@settings(deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5), st.randoms(), st.integers(0, 99))
def test_both_sides_of_a_reshape_keep_the_same_elements(sizes, random, seed):
    left = [Axis(size) for size in sizes]
    merged, run = [], 1
    for size in sizes:
        run *= size
        if random.random() < 0.5:
            merged.append(run)
            run = 1
    right = [Axis(size) for size in [*merged, run]]
    equate_products(left, right)
    masks = masks_for([*left, *right], seed)
    assert (kept(product(left), masks) == kept(product(right), masks)).all()
    assert not any(leaf.pinned for axis in left for leaf in axis.leaves())


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.data(), st.integers(0, 99))
def test_both_sides_of_a_split_keep_the_same_elements(sizes, data, seed):
    total = sum(sizes)
    cuts = sorted(data.draw(st.sets(st.integers(1, total - 1), max_size=3)))
    others = np.diff([0, *cuts, total]).tolist()
    left, right = [Axis(size) for size in sizes], [Axis(size) for size in others]
    equate_sums(left, right)
    masks = masks_for([*left, *right], seed)
    assert (kept(concatenation(left), masks) == kept(concatenation(right), masks)).all()


@settings(deadline=None)
@given(st.integers(0, 99))
def test_fused_heads_split_after_they_were_reshaped(seed):
    fused, heads, width = Axis(24), [Axis(2) for _ in range(3)], [Axis(4) for _ in range(3)]
    thirds = [Axis(8) for _ in range(3)]
    for third, head, wide in zip(thirds, heads, width, strict=True):
        equate_products([third], [head, wide])
    equate_sums([fused], thirds)
    masks = masks_for([fused], seed)
    expected = [
        np.logical_and.outer(kept(h, masks), kept(w, masks)).reshape(-1)
        for h, w in zip(heads, width, strict=True)
    ]
    assert (kept(fused, masks) == np.concatenate(expected)).all()


def test_a_channel_shuffle_ties_the_halves():
    first, second = Axis(6), Axis(6)
    shuffled = concatenation([first, second])
    equate_products([shuffled], [Axis(2, "halves"), Axis(6)])
    (leaf,) = {leaf for axis in (first, second) for leaf in axis.leaves()}
    mask = np.arange(6) != 2
    assert (kept(shuffled, {leaf: mask}) == np.tile(mask, 2)).all()


def test_sizes_that_do_not_divide_are_pinned():
    left, right = [Axis(4), Axis(6)], [Axis(6), Axis(4)]
    equate_products(left, right)
    assert all(leaf.pinned for axis in [*left, *right] for leaf in axis.leaves())


def test_an_axis_that_equals_itself_shifted_is_pinned():
    one, rest = Axis(1), Axis(2000)
    equate_sums([one, rest], [rest, Axis(1)])
    assert all(axis.is_pinned for axis in (one, rest))


def test_an_axis_of_very_many_parts():
    axis, singles = Axis(1500), [Axis(1) for _ in range(1500)]
    equate_sums([axis], singles)
    masks = {singles[3].root: np.zeros(1, bool)}
    assert np.flatnonzero(~kept(axis, masks)).tolist() == [3]


def test_what_is_known_of_an_axis_reaches_its_parts_and_its_equals():
    whole, other = Axis(12), Axis(12)
    whole.pin("an output")
    whole.normalize()
    equate_products([whole], [Axis(3), Axis(4)])
    equate(whole, other)
    assert [(leaf.pinned, leaf.normalized) for leaf in other.leaves()] == [("an output", True)] * 2


def test_positions_name_the_channel_of_every_index():
    heads, width, rest = Axis(2), Axis(3), Axis(2)
    axis = concatenation([product([heads, width]), rest])
    assert positions(axis, width).tolist() == [0, 1, 2, 0, 1, 2, -1, -1]
    assert positions(axis, heads).tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
