"""Fitting a profile to measurements that a user made on a device."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML

from compress.errors import HardwareError, first_problem
from compress.estimator.cost import Cost
from compress.estimator.hardware import UNCERTAINTY, Memory, Profile, Quantity, scaled
from compress.estimator.scoring import Estimable, estimate
from compress.source import locate


@dataclass(frozen=True)
class Measurement:
    """Measured energy and time of one inference of a model."""

    model: Estimable
    joules: float
    seconds: float
    shapes: Mapping[str, Sequence[int] | int] | None = None


@dataclass(frozen=True)
class Fit:
    """A fitted profile, and its errors on the measurements that it was fitted to."""

    profile: Profile
    energy_errors: tuple[float, ...]
    """Estimated over measured joules minus 1, by measurement."""
    seconds_errors: tuple[float, ...]
    scales: Mapping[str, float]
    """Factors of compute time, memory time, operation energy and DRAM energy; and the static watts."""


def fit(profile: Profile, measurements: Sequence[Measurement], source: str = "measured by the user") -> Fit:
    """Return the profile with times and energies fitted to measurements.

    Two fits by non-negative least squares of relative errors. The first finds a factor each for compute
    time and memory time. The second finds a factor each for on-chip and off-chip energy, and watts that
    are drawn all the time, at the measured seconds. With fewer measurements than factors, one factor for
    all keeps the profile's proportions. Factors that the data cannot tell apart become zero: check
    `Fit.scales`.

    Raises:
        HardwareError: there are no measurements, or one is not positive.
    """
    if not measurements:
        raise HardwareError("a fit needs at least one measurement")
    if any(one.joules <= 0 or one.seconds <= 0 for one in measurements):
        raise HardwareError("measured joules and seconds must be positive")
    serial = profile.model_copy(update={"overlap": False})
    timed = _fit_times(serial, measurements)
    fitted = _fit_energies(timed.profile, measurements, source)
    scales = {**timed.scales, **fitted.scales}
    return Fit(fitted.profile, *_errors(fitted.profile, measurements), scales)


@dataclass(frozen=True)
class _Step:
    profile: Profile
    scales: Mapping[str, float]


def _fit_times(profile: Profile, measurements: Sequence[Measurement]) -> _Step:
    free = scaled(profile, {"bytes_per_second": 1e9}, everywhere=True)
    whole = np.array([_total(profile, one).seconds for one in measurements])
    compute = np.array([_total(free, one).seconds for one in measurements])
    seconds = np.array([one.seconds for one in measurements])
    slower, memory = _nonnegative(np.stack([compute, whole - compute], 1), seconds, (1.0, 1.0))
    rates = {"macs_per_second": slower, "ops_per_second": slower, "bytes_per_second": memory}
    factors = {name: 1 / factor if factor else 1e9 for name, factor in rates.items()}
    return _Step(
        scaled(profile, factors, everywhere=True), {"compute seconds": slower, "memory seconds": memory}
    )


def _fit_energies(profile: Profile, measurements: Sequence[Measurement], source: str) -> _Step:
    outside = {memory.name for memory in profile.memories if memory.off_chip}
    rows = []
    for one in measurements:
        energy = _total(profile, one).energy
        dram = sum(joules for name, joules in energy.items() if name in outside)
        rows.append([sum(energy.values()) - energy.get("static", 0.0) - dram, dram, one.seconds])
    joules = np.array([one.joules for one in measurements])
    drawn = sum(each.value for each in (profile.clock_watts, profile.leakage_watts) if each is not None)
    operations, dram, watts = _nonnegative(np.array(rows), joules, (1.0, 1.0, drawn))
    energies = dict.fromkeys(("pj_per_mac", "pj_per_gated_mac", "pj_per_op", "pj_per_bit"), operations)
    result = scaled(profile, energies)
    memories = tuple(_with_energy(memory, dram) if memory.off_chip else memory for memory in result.memories)
    supply = profile.supply_efficiency.value if profile.supply_efficiency is not None else 1.0
    apart = np.array(rows) @ [operations, dram, watts] / joules - 1
    clock, leakage = _split_static(profile, watts * supply, float(np.sqrt(np.square(apart).mean())))
    update: dict[str, Any] = {"memories": memories, "clock_watts": clock, "leakage_watts": leakage}
    update["sources"] = {**profile.sources, "fit": source}
    scales = {"operation energy": operations, "DRAM energy": dram, "static watts": watts}
    whole = result.model_copy(update=update)
    return _Step(Profile.model_validate(whole.model_dump()), scales)  # numbers learn their places


def _split_static(profile: Profile, watts: float, error: float) -> tuple[Quantity | None, Quantity]:
    """Return clock and leakage power; in a profile that has both, leakage stays and the rest is clock.

    The power is as sure as the fit comes close, and no surer than a published number.
    """
    low, high = UNCERTAINTY["published"]
    ends = {"low": watts * min(low, 1 - error), "high": watts * max(high, 1 + error)} if error < 1 else {}
    whole = Quantity(
        value=watts, tag="computed", scope=profile.scope, source="fit", **(ends if watts else {})
    )
    if profile.clock_watts is None or profile.leakage_watts is None:
        return None, whole
    leakage = min(profile.leakage_watts.value, watts)
    return whole.times((watts - leakage) / watts if watts else 0.0), whole.times(
        leakage / watts if watts else 0.0
    )


def _with_energy(memory: Memory, factor: float) -> Memory:
    if memory.pj_per_bit is None:
        return memory
    return memory.model_copy(update={"pj_per_bit": memory.pj_per_bit.times(factor)})


def _nonnegative(columns: np.ndarray, measured: np.ndarray, prior: Sequence[float]) -> list[float]:
    """Return the non-negative factors of the columns with the least squares of relative errors.

    The best of the unrestricted solutions over all subsets of columns is the restricted one; with three
    columns that is seven small systems. With fewer measurements than columns, `prior` is scaled.
    """
    relative = columns / measured[:, None]
    width = columns.shape[1]
    expected = relative @ np.array(prior)
    if len(measured) < (columns > 0).any(axis=0).sum() and expected.any():
        common = float(expected.sum() / np.square(expected).sum())
        return [common * each for each in prior]
    best, least = [0.0] * width, np.inf
    for subset in itertools.chain.from_iterable(
        itertools.combinations(range(width), n + 1) for n in range(width)
    ):
        factors = np.linalg.lstsq(relative[:, subset], np.ones(len(measured)), rcond=None)[0]
        error = float(np.square(relative[:, subset] @ factors - 1).sum())
        if (factors >= 0).all() and error < least * (1 - 1e-9):
            least = error
            best = [float(factors[subset.index(i)]) if i in subset else 0.0 for i in range(width)]
    return best


def _errors(
    profile: Profile, measurements: Sequence[Measurement]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    totals = [_total(profile, one) for one in measurements]
    energy = [total.energy_joules / one.joules - 1 for total, one in zip(totals, measurements, strict=True)]
    seconds = [total.seconds / one.seconds - 1 for total, one in zip(totals, measurements, strict=True)]
    return tuple(energy), tuple(seconds)


def _total(profile: Profile, one: Measurement) -> Cost:
    return estimate(one.model, profile, shapes=one.shapes).total


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    joules: float
    seconds: float
    shapes: dict[str, list[int] | int] | None = None


def read_measurements(path: str | os.PathLike[str]) -> list[Measurement]:
    """Read measurements from JSON: a list of objects with model, joules, seconds and, if needed, shapes.

    Paths of models are relative to the file.

    Raises:
        HardwareError: the file cannot be read or holds something else.
        ModelError: a model does not exist.
    """
    try:
        rows = TypeAdapter(list[_Row]).validate_json(Path(path).read_bytes())
    except OSError as error:
        raise HardwareError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise HardwareError(f"{path}: {first_problem(error)}") from error
    home = Path(path).parent
    return [Measurement(locate(row.model, home), row.joules, row.seconds, row.shapes) for row in rows]


def save(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write a profile as YAML that `load` reads.

    Raises:
        HardwareError: the file cannot be written.
    """
    yaml = YAML()
    yaml.width = 110
    try:
        with Path(path).open("w", encoding="utf-8") as file:
            yaml.dump(profile.model_dump(mode="json", exclude_defaults=True), file)
    except OSError as error:
        raise HardwareError(f"{path}: {error.strerror}") from error
