"""Meters on folders that look as sysfs does, and on a library that answers as NVML does."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.estimator import meter
from compress.estimator.meter import Counter, Meter, Power, find_gpu_meter, find_meter


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def zone(sysfs: Path, place: str, name: str, microjoules: int) -> Path:
    folder = sysfs / "powercap" / f"intel-rapl:{place}"
    return write(folder, name=name, energy_uj=microjoules, max_energy_range_uj=262143328850)


def battery(sysfs: Path, name: str = "BAT0", **files: object) -> Path:
    known = {"type": "Battery", "status": "Discharging"}
    return write(sysfs / "power_supply" / name, **known | files)


class Since:
    """A meter that is there, and the joules since it was last asked."""

    def __init__(self, found: Meter | str) -> None:
        assert not isinstance(found, str)
        self.meter, self.name, self.last = found, found.name, found.read()

    def joules(self) -> float:
        before, self.last = self.last, self.meter.read()
        return self.meter.joules(before, self.last)


def on(sysfs: Path) -> Since:
    return Since(find_meter(sysfs))


def test_rapl_counts_packages_and_dram_once(tmp_path: Path) -> None:
    package, dram = zone(tmp_path, "0", "package-0", 1_000_000), zone(tmp_path, "0:1", "dram", 500_000)
    core, platform = zone(tmp_path, "0:0", "core", 700_000), zone(tmp_path, "1", "psys", 9_000_000)
    found = on(tmp_path)
    for each, more in ((package, 3_000_000), (dram, 250_000), (core, 2_000_000), (platform, 5_000_000)):
        counter = each / "energy_uj"
        counter.write_text(f"{int(counter.read_text()) + more}\n")
    assert found.name == "RAPL (packages and DRAM)"
    assert found.joules() == pytest.approx(3.25)
    assert found.joules() == 0.0


def test_a_wrapped_counter_goes_on(tmp_path: Path) -> None:
    folder = zone(tmp_path, "0", "package-0", 262143328850 - 100_000)
    found = on(tmp_path)
    (folder / "energy_uj").write_text("150000\n")
    assert found.joules() == pytest.approx(0.25)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20), st.integers(6, 100))
def test_readings_of_a_counter_add_up_over_any_number_of_wraps(steps: list[float], wrap: int) -> None:
    total = 0.0
    found = Since(Counter("", lambda: [total % wrap], [wrap]))
    told = 0.0
    for step in steps:
        total += step
        told += found.joules()
    assert told == pytest.approx(total, abs=1e-9)


def test_hwmon_counts_sockets_and_not_their_cores_too(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "hwmon/hwmon3",
        name="amd_energy",
        energy1_input=10,
        energy1_label="Ecore000",
        energy2_input=50_000_000,
        energy2_label="Esocket0",
    )
    found = on(tmp_path)
    write(folder, energy1_input=2_000_000, energy2_input=54_000_000)
    assert (found.name, found.joules()) == ("hwmon (amd_energy)", pytest.approx(4.0))


@pytest.mark.parametrize(
    "files", [{"power_now": 12_500_000}, {"current_now": -1_250_000, "voltage_now": 10_000_000}]
)
def test_a_battery_tells_power_by_time(
    files: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = battery(tmp_path, **files)
    battery(tmp_path, "hid-mouse", scope="Device", power_now=1)
    clock = [100.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: clock[0])
    found = on(tmp_path)
    clock[0] = 104.0
    assert found.joules() == pytest.approx(12.5 * 4)
    assert found.meter.least_seconds > 1
    write(folder, status="Charging")
    assert math.isnan(found.joules())


def test_a_battery_that_tells_only_its_energy(tmp_path: Path) -> None:
    folder = battery(tmp_path, energy_now=40_000_000)
    found = on(tmp_path)
    write(folder, energy_now=39_990_000)
    assert found.joules() == pytest.approx(36.0)


def test_power_that_rises_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(0.0, 10.0), (2.0, 20.0), (3.0, 20.0)])
    now: list[float] = []

    def watts() -> float:
        return now[1]

    def tick() -> float:
        now[:] = next(readings)
        return now[0]

    monkeypatch.setattr(meter.time, "perf_counter", tick)
    found = Since(Power("", watts))
    assert (found.joules(), found.joules()) == (30.0, 20.0)


def test_what_a_machine_lacks_is_said(tmp_path: Path) -> None:
    assert find_meter(tmp_path) == ("not measured: this machine has no energy meter (RAPL, hwmon or battery)")
    battery(tmp_path, status="Full", power_now=0)
    assert find_meter(tmp_path) == "not measured: the battery is not being emptied: unplug the machine"


def test_a_counter_for_root_alone_leaves_the_next_gauge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "0", "package-0", 1)
    read = meter._number

    def refused(file: Path) -> float:
        if file.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(file))
        return read(file)

    monkeypatch.setattr(meter, "_number", refused)
    told = find_meter(tmp_path)
    assert isinstance(told, str) and told.endswith("energy_uj: Permission denied; root may read it")
    write(tmp_path / "hwmon/hwmon0", name="board", energy1_input=5)
    assert on(tmp_path).name == "hwmon (board)"


class Nvml:
    """Answers as NVML does: two GPUs, of which the second has no counter unless `counters`."""

    class NVMLError(Exception):
        pass

    def __init__(self, counters: bool) -> None:
        self.counters, self.millijoules = counters, {"0": 5_000, "1": 7_000, "GPU-b": 7_000}

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        if index > 1:
            raise self.NVMLError("Invalid Argument")
        return str(index)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:  # noqa: N802
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: str) -> int:  # noqa: N802
        if not self.counters:
            raise self.NVMLError("Not Supported")
        return self.millijoules[gpu]

    def nvmlDeviceGetPowerUsage(self, gpu: str) -> int:  # noqa: N802
        return 150_000


@pytest.mark.parametrize(("visible", "chosen"), [("", "0"), ("1", "1"), ("GPU-b,0", "GPU-b")])
def test_nvml_counts_the_gpu_that_is_used(visible: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Nvml(counters=True)
    monkeypatch.setattr(meter, "nvml", library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = Since(find_gpu_meter(1))
    library.millijoules[chosen] += 2_500
    assert (found.name, found.joules()) == ("NVML (1 GPU)", pytest.approx(2.5))


def test_an_old_gpu_tells_power(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "nvml", Nvml(counters=False))
    clock = [0.0]
    monkeypatch.setattr(meter, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    found = Since(find_gpu_meter(2))
    clock[0] = 2.0
    assert found.joules() == pytest.approx(600.0)


def test_gpus_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "nvml", Nvml(counters=True))
    assert find_gpu_meter(3) == "not measured: NVML: Invalid Argument"
    monkeypatch.setattr(meter, "nvml", None)
    assert find_gpu_meter(1) == (
        "not measured: NVML needs the package nvidia-ml-py; install compress-toolkit[energy]"
    )
