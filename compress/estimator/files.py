"""Where hardware profiles are: those that come with the package by name, those of users as YAML files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "profiles"
"""Folder of the profiles that come with the package; a profile is called by its file's stem."""


def ids() -> tuple[str, ...]:
    """Return the identifiers of the profiles that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def is_file(hardware: str) -> bool:
    """Tell whether a profile is given as a YAML file, not by name."""
    return hardware.endswith((".yaml", ".yml"))


def profile_id(hardware: str) -> str:
    """Return how results call a profile: a file by its stem, any other by its identifier."""
    return Path(hardware).stem if is_file(hardware) else hardware


def profile_path(hardware: str) -> Path:
    """Return the file of a profile; nothing says that it exists."""
    return Path(hardware) if is_file(hardware) else FOLDER / f"{hardware}.yaml"
