"""What this machine's processor can do with 8-bit integers."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Literal

VNNI_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""Flags of x86 instructions that sum 8-bit products in 32 bits; without them the sums saturate at 16."""


@cache
def flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux lists them; empty on other systems."""
    return frozenset(described("flags", "Features").split())


def described(*keys: str) -> str:
    """Return what Linux says of the processor under the first of these keys; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def saturates() -> bool:
    """Tell whether 8-bit activations times 8-bit weights may saturate here, as on x86 without VNNI.

    A machine whose flags cannot be read is taken for one that saturates.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return False
    return not flags() & VNNI_FLAGS


def weight_bits(wanted: Literal["auto", 4, 7, 8]) -> Literal[4, 7, 8]:
    """Return the bits of weights beside 8-bit activations; "auto" is 7 where sums may saturate."""
    if wanted == "auto":
        return 7 if saturates() else 8
    return wanted
