"""Agreement against its formula; the worst output counts; what cannot be compared is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compress.data import Feeds
from compress.diagnose.agreement import agreement
from compress.errors import PassError

SCORES = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)


def identity(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"]]


def shifted(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"] + np.float32(0.1)]


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)))
def test_agreement_is_the_signal_to_noise_ratio(x: np.ndarray) -> None:
    found = agreement(shifted, identity, [{"x": x}])
    noise = float(np.square(x.astype(np.float64) - (x + np.float32(0.1))).sum())
    signal = float(np.square(x.astype(np.float64)).sum())
    assert found.snr_db == pytest.approx(10 * math.log10(signal / noise) if signal else -math.inf)


def test_agreement_of_equal_outputs_is_infinite() -> None:
    found = agreement(identity, identity, [{"x": SCORES}])
    assert found.snr_db == math.inf
    assert found.cosine == pytest.approx(1.0)


def test_agreement_reports_the_worst_output() -> None:
    def original(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"], feeds["x"]]

    def variant(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"], -feeds["x"]]

    found = agreement(variant, original, [{"x": SCORES}])
    assert found.snr_db == pytest.approx(-20 * math.log10(2))
    assert found.cosine == pytest.approx(-1.0)


def test_nan_in_a_variants_outputs_is_an_error_but_shared_infinities_are_not() -> None:
    def broken(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"] * np.float32(np.nan)]

    with pytest.raises(PassError, match="output 0 holds NaN"):
        agreement(broken, identity, [{"x": np.ones((2, 2), np.float32)}])
    masked = np.array([[1.0, -np.inf]], np.float32)
    assert agreement(identity, identity, [{"x": masked}]).snr_db == math.inf
