"""Hardware profiles read from YAML: those that come with the package, and those of its users."""

from __future__ import annotations

import os
import re
from functools import lru_cache

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from compress.errors import HardwareError, did_you_mean
from compress.estimator import files
from compress.estimator.detection import fill_in
from compress.estimator.hardware import Profile


@lru_cache(maxsize=64)
def load(id_or_path: str | os.PathLike[str]) -> Profile:
    """Return the profile of that name, or the one in a YAML file.

    Raises:
        HardwareError: there is no such profile or file, or it is not valid; the message names the
            field and, for an unknown name, the closest one.
    """
    return _parse(text(id_or_path), os.fspath(id_or_path))


def as_profile(hardware: str | os.PathLike[str] | Profile) -> Profile:
    """Return a profile as it is, or load the one of that name or file.

    Raises:
        HardwareError: as for `load`.
    """
    return hardware if isinstance(hardware, Profile) else load(os.fspath(hardware))


def text(id_or_path: str | os.PathLike[str]) -> str:
    """Return the YAML of a profile as it was written, comments included, to start a profile of one's own.

    Raises:
        HardwareError: there is no such profile or file.
    """
    name = os.fspath(id_or_path)
    if not files.is_file(name) and name not in files.ids():
        raise HardwareError(f"unknown hardware {name!r}{did_you_mean(name, files.ids())}")
    try:
        return files.profile_path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise HardwareError(f"{name}: {error.strerror}") from error


def renamed(id_or_path: str | os.PathLike[str], name: str) -> str:
    """Return the YAML of a profile as `text` does, under another identifier.

    Raises:
        HardwareError: there is no such profile, or `name` is taken or is not a valid identifier.
    """
    if name in files.ids():
        raise HardwareError(f"hardware {name!r} exists already; choose another name")
    changed = re.sub(r"^id: .*$", lambda _: f"id: {name}", text(id_or_path), count=1, flags=re.MULTILINE)
    _parse(changed, f"hardware {name!r}")
    return changed


def _parse(content: str, name: str) -> Profile:
    try:
        raw = YAML(typ="safe").load(content)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise HardwareError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(raw, dict):
        raise HardwareError(f"{name}: a profile is a mapping with id, sources, arithmetic and memories")
    try:
        return Profile.model_validate(fill_in(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")  # pydantic's own words before a model's error
        raise HardwareError(f"{name}: {where + ': ' if where else ''}{problem}") from error
