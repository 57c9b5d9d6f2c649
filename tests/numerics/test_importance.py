"""Importance of coupled channels."""

import numpy as np

from compress.numerics.importance import coupled, slice_energy


def test_slice_energy_sums_the_squares_of_every_other_axis():
    weight = np.arange(24.0).reshape(2, 3, 4)
    assert slice_energy(weight, 1).tolist() == [(weight[:, i] ** 2).sum() for i in range(3)]
    assert (slice_energy(weight, -1) == slice_energy(weight, 2)).all()


def test_a_large_weight_does_not_drown_a_small_one():
    large = (np.array([100.0, 100.0, 100.0]), np.arange(3))
    small = (np.array([0.1, 0.2, 0.3]), np.arange(3))
    scores = coupled([large, small], 3)
    assert scores[2] > 1.1 * scores[0]
    np.testing.assert_allclose((scores**2).mean(), 1.0)


def test_positions_are_added_up_by_channel_and_strangers_left_out():
    energies, channels = np.array([1.0, 5.0, 3.0, 100.0]), np.array([0, 1, 0, -1])
    np.testing.assert_allclose(coupled([(energies, channels)], 2) ** 2, [4 / 4.5, 5 / 4.5])


def test_nothing_runs_through_the_channels():
    assert coupled([], 2).tolist() == [0, 0]
