"""Sums of noise and of what a quantizer does."""

from __future__ import annotations

import numpy as np
import pytest

from compress.diagnose.noise import Spread, Sums
from compress.diagnose.sites import Quantizer


def test_ratios_are_of_the_sums_over_all_batches() -> None:
    sums = Sums()
    sums.update(np.array([3.0, np.inf]), np.array([2.0, 0.0]), np.array([3.0, 0.0]))
    sums.update(np.array([4.0]), np.array([4.0]), np.array([2.0]))
    assert sums.ratio == pytest.approx(1 / 25)
    assert sums.plain_ratio == pytest.approx(4 / 25)


def test_other_shapes_are_nothing_but_noise() -> None:
    sums = Sums(signal=1.0)
    sums.update(np.ones(2), np.ones(3), np.ones(2))
    assert sums.ratio == np.inf


def test_a_spread_tells_clipping_from_rounding() -> None:
    spread = Spread(Quantizer(low=-1.0, high=1.0, step=0.1), channel_axis=1)
    spread.update(np.array([[0.5, 1.02, 3.0]]))
    assert spread.clipped_share == pytest.approx(1 / 3)  # 1.02 is less than half a step beyond
    power = 0.5**2 + 1.02**2 + 3.0**2
    assert spread.clipping_ratio == pytest.approx((2.0**2 + 0.02**2) / power)
    assert spread.rounding_ratio == pytest.approx(3 * 0.1**2 / 12 / power)
    assert spread.outlier == pytest.approx(3.0 / 1.02)
