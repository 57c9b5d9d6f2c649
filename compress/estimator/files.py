"""The files of hardware profiles: those of the package are found by name, those of users by path."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "profiles"
"""Folder of the profiles that come with the package; the stem of a file is the name of its profile."""


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
