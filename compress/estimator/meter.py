"""Time of a model measured on this machine, and its energy if the machine has a meter."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.graph.session import session
from compress.model import Model

if TYPE_CHECKING:
    import onnxruntime as ort

    from compress.data import Feeds

_POWERCAP = Path("/sys/class/powercap")
_HWMON = Path("/sys/class/hwmon")


@dataclass(frozen=True)
class Meter:
    """Energy counters in microjoules, read as files."""

    name: str
    counters: tuple[Path, ...]
    wraps_at: tuple[int, ...]
    """Microjoules at which each counter starts again at zero; 0 if it never does."""

    def read(self) -> tuple[int, ...]:
        """Return the counters, in microjoules."""
        return tuple(int(path.read_text()) for path in self.counters)

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Return the energy between two readings, at most one wrap of each counter apart."""
        spent = 0
        for start, end, wrap in zip(before, after, self.wraps_at, strict=True):
            spent += end - start if end >= start else end - start + wrap
        return spent * 1e-6


@dataclass(frozen=True)
class Measured:
    """Measured time and energy of one inference."""

    seconds: float
    joules: float | None
    """Energy less what the idle machine draws in that time; None without a meter. Never an estimate."""
    meter: str
    """Name of the meter, or the reason why there is none."""


def find_meter() -> Meter | str:
    """Return the machine's energy meter, or the reason why there is none.

    RAPL (Intel and AMD packages, usually readable by root alone), then energy counters of hwmon. A
    virtual machine mostly has neither.
    """
    packages = sorted(_POWERCAP.glob("intel-rapl:[0-9]*")) if _POWERCAP.is_dir() else []
    packages = [package for package in packages if package.name.count(":") == 1]
    counters = tuple(package / "energy_uj" for package in packages)
    wraps = tuple(int((package / "max_energy_range_uj").read_text()) for package in packages)
    if not counters:
        counters = tuple(sorted(_HWMON.glob("hwmon*/energy*_input"))) if _HWMON.is_dir() else ()
        wraps = (0,) * len(counters)
    if not counters:
        return "not measured: this machine has no energy counter (RAPL or hwmon)"
    try:
        for counter in counters:
            counter.read_text()
    except OSError as error:
        return f"not measured: {error.filename}: {error.strerror}; root may read it"
    return Meter("RAPL" if packages else "hwmon", counters, wraps)


def measure(
    model: Model | str | os.PathLike[str],
    feeds: Feeds,
    *,
    threads: int = 0,
    runs: int = 20,
    idle_seconds: float = 1.0,
) -> Measured:
    """Return time and energy of one inference, over `runs` of them after one to warm up.

    Args:
        model: what to run in ONNX Runtime: a model, or the path of an ONNX file.
        feeds: arrays by input name.
        threads: threads of one operator; 0 leaves the choice to the runtime.
        runs: inferences that the result is the mean of.
        idle_seconds: how long the idle power of the machine is measured beforehand.

    Raises:
        ModelError: the runtime refuses the model or these inputs.
    """
    opened = session(model.ir if isinstance(model, Model) else model, threads=threads)
    meter = find_meter()
    opened.run(None, feeds)
    if isinstance(meter, str):
        return Measured(_timed(opened, feeds, runs) / runs, None, meter)
    before = meter.read()
    time.sleep(idle_seconds)
    idle_watts = meter.joules(before, meter.read()) / idle_seconds
    before = meter.read()
    seconds = _timed(opened, feeds, runs)
    joules = meter.joules(before, meter.read()) - idle_watts * seconds
    return Measured(seconds / runs, max(joules, 0.0) / runs, meter.name)


def _timed(opened: ort.InferenceSession, feeds: Feeds, runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        opened.run(None, feeds)
    return time.perf_counter() - start
