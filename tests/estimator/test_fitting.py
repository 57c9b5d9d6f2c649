"""Fitting a profile to measurements."""

from __future__ import annotations

from pathlib import Path

import mlperf_tiny
import pytest

from compress.errors import HardwareError
from compress.estimator import estimate, load
from compress.estimator.fitting import Measurement, fit, save


def made_up(profile_id: str = "ndp9120") -> list[Measurement]:
    """Measurements of a device that is the profile, but slower, hungrier and leaking more."""
    found = []
    for build in mlperf_tiny.NETWORKS.values():
        total = estimate(build(), profile_id).total
        seconds = 3 * total.seconds
        operations = total.energy_joules - total.energy["static"]
        found.append(Measurement(build(), 2 * operations + 0.005 * seconds, seconds))
    return found


def test_a_known_device_is_found_again() -> None:
    fitted = fit(load("ndp9120"), made_up())
    assert fitted.scales["compute seconds"] == pytest.approx(3, rel=1e-3)
    assert fitted.scales["memory seconds"] == pytest.approx(3, rel=1e-3)
    assert fitted.scales["operation energy"] == pytest.approx(2, rel=1e-3)
    assert fitted.scales["static watts"] == pytest.approx(0.005, rel=1e-3)
    assert max(map(abs, (*fitted.energy_errors, *fitted.seconds_errors))) < 1e-3


def test_one_measurement_scales_everything_alike() -> None:
    start, one = load("ndp9120"), made_up()[0]
    fitted = fit(start, [one])
    assert fitted.energy_errors + fitted.seconds_errors == pytest.approx((0.0, 0.0), abs=1e-9)
    before, after = (estimate(mlperf_tiny.keyword_spotting(), each).total for each in (start, fitted.profile))
    assert after.seconds == pytest.approx(3 * before.seconds)


def test_a_fitted_profile_is_written_and_read_back(tmp_path: Path) -> None:
    fitted = fit(load("gap9"), made_up("gap9"), source="my desk").profile
    save(fitted, tmp_path / "mine.yaml")
    assert load(tmp_path / "mine.yaml") == fitted
    assert fitted.sources["fit"] == "my desk"


def test_nothing_to_fit_is_an_error() -> None:
    with pytest.raises(HardwareError, match="at least one"):
        fit(load("gap9"), [])
    with pytest.raises(HardwareError, match="positive"):
        fit(load("gap9"), [Measurement(mlperf_tiny.anomaly_detection(), 0.0, 1.0)])
