"""The files of hardware profiles: those of the package are found by name, those of users by path."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

import platformdirs

from compress import cpu

FOLDER = Path(__file__).parent / "profiles"
"""Folder of the profiles that come with the package; the stem of a file is the name of its profile."""


MACHINES = Path(__file__).parent / "machines"
"""Folder of the kernel times that come with the package."""


def ids() -> tuple[str, ...]:
    """Return the identifiers of the profiles that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def is_file(hardware: str) -> bool:
    """Tell whether a profile is given as the path of a YAML file, not by name."""
    return hardware.endswith((".yaml", ".yml"))


def profile_id(hardware: str) -> str:
    """Return the name of a profile in results: the stem of its file, or its identifier."""
    return Path(hardware).stem if is_file(hardware) else hardware


def profile_path(hardware: str) -> Path:
    """Return the path of a profile's file, which may not exist."""
    return Path(hardware) if is_file(hardware) else FOLDER / f"{hardware}.yaml"


def own_kernels_path() -> Path:
    """Return where this user keeps the kernel times of this processor with this runtime."""
    known = [platform.machine(), *sorted(cpu.flags()), version("onnxruntime")]
    key = hashlib.sha256(" ".join(known).encode()).hexdigest()[:12]
    return platformdirs.user_cache_path("compress") / f"kernels-{key}.json"


def kernels_path() -> Path | None:
    """Return the file with the kernel times of this machine, or of one alike; None if there is none."""
    own = own_kernels_path()
    if own.exists():
        return own
    alike = MACHINES / f"{platform.machine()}{'' if cpu.saturates() else '-vnni'}.json"
    return alike if alike.exists() else None
