"""The cheapest operating point that meets a deadline: race to idle, or slow and steady."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.errors import HardwareError
from compress.estimator.catalogue import as_profile
from compress.estimator.hardware import Profile
from compress.estimator.scoring import Estimable, Estimate, estimate


@dataclass(frozen=True)
class PointEstimate:
    """One inference at one operating point, and the wait until the next one is due."""

    name: str
    volts: float
    hertz: float
    estimate: Estimate
    idle_joules: float
    """Energy from the end of the inference to the deadline; 0 without a deadline."""
    meets: bool
    """Whether the inference ends by the deadline."""

    @property
    def energy_joules(self) -> float:
        """Inference and wait together."""
        return self.estimate.total.energy_joules + self.idle_joules


def compare_points(
    model: Estimable,
    hardware: str | Profile,
    *,
    deadline_seconds: float | None = None,
    shapes: Mapping[str, Sequence[int] | int] | None = None,
    zeros: Mapping[str, float] | None = None,
) -> list[PointEstimate]:
    """Return an estimate for every operating point, the cheapest that meets the deadline first.

    Points that miss the deadline come last. A fast point draws the profile's idle power until the
    deadline ("race to idle"). A slow point spends less energy per operation, but leaks for longer.

    Args:
        model: as for `estimate`.
        hardware: as for `estimate`; the profile must state operating points.
        deadline_seconds: time from one inference to the next; None leaves the wait out.
        shapes: as for `estimate`.
        zeros: as for `estimate`.

    Raises:
        HardwareError: the profile has no operating points.
    """
    profile = as_profile(hardware)
    if not profile.operating_points:
        raise HardwareError(f"{profile.id} states no operating points")
    found = []
    for point in profile.operating_points:
        scaled = profile.at(point.name)
        estimated = estimate(model, scaled, shapes=shapes, zeros=zeros)
        wait = max((deadline_seconds or 0.0) - estimated.total.seconds, 0.0)
        idle = scaled.idle_watts.value * wait if scaled.idle_watts is not None else 0.0
        meets = deadline_seconds is None or estimated.total.seconds <= deadline_seconds
        found.append(PointEstimate(point.name, point.volts.value, point.hertz.value, estimated, idle, meets))
    return sorted(found, key=lambda one: (not one.meets, one.energy_joules))
