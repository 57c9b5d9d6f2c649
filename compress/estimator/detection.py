"""What a profile reads from the machine it runs on: cache sizes, cores, vector width."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from compress.cpu import flags

_CPU = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}


def fill_in(raw: Any) -> Any:
    """Return a parsed profile with every ``detect: NAME`` replaced by a reading of this machine.

    A quantity with ``detect`` takes the reading as its value and the tag ``detected``. With ``scale``
    the value is the reading times that factor, and the tag stays, because the factor is a model. If
    the machine gives no reading, value and tag stay as they are stated.
    """
    if isinstance(raw, list):
        return [fill_in(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    if "detect" not in raw:
        return {key: fill_in(item) for key, item in raw.items()}
    filled = {key: item for key, item in raw.items() if key not in ("detect", "scale")}
    reading = _read(str(raw["detect"]))
    if reading is not None:
        filled["value"] = reading * raw.get("scale", 1)
        if "scale" not in raw:
            filled["tag"] = "detected"
    return filled


def _read(name: str) -> float | None:
    if name == "cores":
        return float(os.cpu_count() or 1)
    if name == "vector-lanes":
        return float(_vector_lanes())
    return _cache_bytes(name)


def _cache_bytes(name: str) -> float | None:
    """Return the size of cache ``l1``, ``l2`` or ``l3`` of the first core; None if Linux does not tell."""
    for index in sorted(_CPU.glob("index*")):
        try:
            level = Path(index, "level").read_text().strip()
            kind = Path(index, "type").read_text().strip()
            size = re.fullmatch(r"(\d+)([KMG]?)", Path(index, "size").read_text().strip())
        except OSError:
            continue
        if size and f"l{level}" == name and kind in ("Data", "Unified"):
            return float(size[1]) * _UNITS.get(size[2], 1)
    return None


def _vector_lanes() -> int:
    """Return how many float32 one vector register holds, by the flags of the CPU."""
    if "avx512f" in flags():
        return 16
    return 8 if "avx2" in flags() else 4
