"""What tells a machine's energy: RAPL, counters of hwmon, a battery, and NVML for NVIDIA's GPUs."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from compress import units

try:
    import pynvml
except ImportError:
    pynvml = None
nvml: Any = pynvml

SYSFS = Path("/sys/class")
LEAST_SECONDS = 1.0
"""How long a measurement takes at least; as long as a meter needs, if that is more."""
POLL_SECONDS = 0.1
"""How often meters are read meanwhile: a power must be followed, and no counter may wrap twice unseen."""
WATT_HOUR = 3600.0
"""Joules."""


class Meter(Protocol):
    """Something that is read before and after, and then tells the joules between."""

    @property
    def name(self) -> str:
        """What it is, and what it covers."""

    @property
    def least_seconds(self) -> float:
        """The shortest time over which it can be trusted: many times what it takes to renew its reading."""

    def read(self) -> tuple[float, ...]:
        """Return a reading."""

    def joules(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        """Return the joules between two readings; NaN if it could not tell."""


@dataclass(frozen=True)
class Counter:
    """Counters that only grow, or start again at zero."""

    name: str
    counters: Callable[[], Sequence[float]]
    """Returns the joules of each counter so far."""
    wraps_at: Sequence[float] = ()
    """Joules at which each starts again at zero; nothing where none does."""
    least_seconds: float = 1.0

    def read(self) -> tuple[float, ...]:
        """Return the joules of each counter."""
        return tuple(self.counters())

    def joules(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        """Return the joules between two readings, at most one wrap of each counter apart."""
        wraps = self.wraps_at or [0.0] * len(before)
        pairs = zip(before, after, wraps, strict=True)
        return math.fsum(end - start if end >= start else end - start + wrap for start, end, wrap in pairs)


@dataclass(frozen=True)
class Power:
    """A power that is read now and then; its mean times the time is energy."""

    name: str
    watts: Callable[[], float]
    least_seconds: float = 1.0

    def read(self) -> tuple[float, ...]:
        """Return the time in seconds, and the watts."""
        return time.perf_counter(), self.watts()

    def joules(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        """Return the joules between two readings, as if the power had changed evenly."""
        return (after[0] - before[0]) * (before[1] + after[1]) / 2


def find_meter(sysfs: Path = SYSFS) -> Meter | str:
    """Return the meter of this machine's processor, or else of all of the machine, or why there is none.

    RAPL comes first (processor packages and their DRAM; Intel and AMD, usually for root alone), then the
    counters of hwmon, then a battery that is being emptied. A virtual machine mostly has none of them.
    """
    reasons = []
    for find in (_rapl, _hwmon, _battery):
        try:
            found = find(sysfs)
            if not isinstance(found, str):
                found.read()
                return found
        except OSError as error:
            found = f"{error.filename}: {error.strerror}"
            found += "; root may read it" if isinstance(error, PermissionError) else ""
        except ValueError as error:
            found = f"{find.__name__.strip('_')} cannot be read: {error}"
        reasons += [found] if found else []
    why = "; ".join(reasons) or "this machine has no energy meter (RAPL, hwmon or battery)"
    return f"not measured: {why}"


def find_gpu_meter(count: int) -> Meter | str:
    """Return the meter of the first GPUs that this process may use, or why there is none."""
    if nvml is None:
        return "not measured: NVML needs the package nvidia-ml-py; install compress-toolkit[energy]"
    try:
        nvml.nvmlInit()
        gpus = [_handle(place) for place in range(count)]
    except nvml.NVMLError as error:
        return f"not measured: NVML: {error}"
    counter = Counter(
        f"NVML ({units.count(count, 'GPU')})",
        lambda: [nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) * 1e-3 for gpu in gpus],
    )
    try:
        counter.read()
    except nvml.NVMLError:  # before Volta there is no counter
        return Power(
            counter.name, lambda: math.fsum(nvml.nvmlDeviceGetPowerUsage(gpu) for gpu in gpus) * 1e-3
        )
    return counter


def _handle(place: int) -> Any:
    """Return the GPU that CUDA numbers `place`; NVML numbers also those that the process may not use."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    name = visible[place] if place < len(visible) else str(place)
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)


def _rapl(sysfs: Path) -> Meter | str:
    # The counter of the whole platform, psys, holds the packages once more; core and uncore are parts of one.
    zones = [
        zone
        for zone in sorted(sysfs.glob("powercap/intel-rapl:*"))
        if _text(zone / "name").startswith(("package", "dram"))
    ]
    if not zones:
        return ""
    files = [zone / "energy_uj" for zone in zones]
    wraps = [_number(zone / "max_energy_range_uj") * 1e-6 for zone in zones]
    covers = " and DRAM" * any(_text(zone / "name") == "dram" for zone in zones)
    return Counter(f"RAPL (packages{covers})", _scaled(files, 1e-6), wraps)


def _hwmon(sysfs: Path) -> Meter | str:
    found = list(sysfs.glob("hwmon/hwmon*/energy*_input"))
    # amd_energy counts every core, and every socket with its cores once more.
    sockets = [file for file in found if _label(file).startswith("Esocket")]
    files = sorted(sockets or found)
    if not files:
        return ""
    chips = dict.fromkeys(_text(file.parent / "name") for file in files)
    return Counter(f"hwmon ({', '.join(chips)})", _scaled(files, 1e-6))


def _battery(sysfs: Path) -> Meter | str:
    supplies = sorted(sysfs.glob("power_supply/*"))
    batteries = [each for each in supplies if _text(each / "type") == "Battery"]
    batteries = [each for each in batteries if not _is_of_device(each)]
    if not batteries:
        return ""
    if not _are_emptied(batteries):
        return "the battery is not being emptied: unplug the machine"
    name = "battery (the whole machine)"
    if not all((each / "power_now").exists() or (each / "current_now").exists() for each in batteries):
        energies = _scaled([each / "energy_now" for each in batteries], -1e-6 * WATT_HOUR)
        return Counter(name, energies, least_seconds=60.0)

    def watts() -> float:
        return math.fsum(map(_watts, batteries)) if _are_emptied(batteries) else math.nan

    return Power(name, watts, least_seconds=10.0)


def _watts(battery: Path) -> float:
    """Return the power of a battery, to which some drivers give a sign."""
    if (battery / "power_now").exists():
        return abs(_number(battery / "power_now")) * 1e-6
    return abs(_number(battery / "current_now")) * _number(battery / "voltage_now") * 1e-12


def _are_emptied(batteries: Sequence[Path]) -> bool:
    return any(_text(each / "status") == "Discharging" for each in batteries)


def _is_of_device(supply: Path) -> bool:
    """Tell whether a battery is a mouse's or a keyboard's."""
    return (supply / "scope").exists() and _text(supply / "scope") == "Device"


def _scaled(files: Sequence[Path], scale: float) -> Callable[[], list[float]]:
    return lambda: [_number(file) * scale for file in files]


def _label(counter: Path) -> str:
    label = counter.with_name(counter.name.replace("_input", "_label"))
    return _text(label) if label.exists() else ""


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()


def _number(file: Path) -> float:
    return float(_text(file))


class Tally:
    """Joules and seconds since it was made."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._lock = meter, threading.Lock()
        self._start, self._joules = time.perf_counter(), 0.0
        self._last = meter.read()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start

    @property
    def joules(self) -> float:
        """Joules so far; NaN if the meter could not tell at some moment."""
        with self._lock:
            try:
                before, self._last = self._last, self._meter.read()
                self._joules += self._meter.joules(before, self._last)
            except OSError:  # a battery that is taken out has no files any more
                self._joules = math.nan
            return self._joules


@contextmanager
def counting(meter: Meter) -> Iterator[Tally]:
    """Count the energy of the body."""
    tally, done = Tally(meter), threading.Event()

    def follow() -> None:
        while not done.wait(POLL_SECONDS):
            _ = tally.joules

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield tally
    finally:
        done.set()
        thread.join()


def at_rest(meter: Meter, seconds: float = LEAST_SECONDS) -> float:
    """Return the watts that a meter shows while this process does nothing."""
    with counting(meter) as tally:
        time.sleep(max(seconds, meter.least_seconds))
        return tally.joules / tally.seconds
