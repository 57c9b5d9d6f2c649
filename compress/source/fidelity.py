"""Whether an exported graph gives the results of the module that it comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.numerics.fills import is_fill

Array = np.ndarray
TOLERANCE = 1e-3
"""Noise over signal up to which results count as equal: float32 in another order of sums."""
HALF_TOLERANCE = 3e-2
"""The same for results in 16 bits."""
UNEQUAL = 0.01
"""Share of integers that may differ, because rounding before an arg-max decides ties."""


def difference(wanted: Sequence[Array], got: Sequence[Array], names: Sequence[str]) -> str:
    """Return in words the first value that differs, and by how much; empty if the results agree."""
    if len(wanted) != len(got):
        return f"it has {len(got)} outputs where torch gives {len(wanted)}"
    for name, a, b in zip(names, wanted, got, strict=True):
        if a.shape != b.shape:
            return f"output {name!r} has shape {list(b.shape)} where torch gives {list(a.shape)}"
        at = _first_unequal(a, b)
        if at is not None:
            place = f" at {list(map(int, at))}" if at else ""
            return f"output {name!r}{place} is {b[at]} where torch gives {a[at]}{_apart(a, b)}"
    return ""


def _apart(a: Array, b: Array) -> str:
    if not _is_float(a):
        return f", and {np.mean(a != b):.0%} of its values differ"
    return f", and noise over signal is {_noise(_wide(a), _wide(b)):.2g}"


def _is_float(array: Array) -> bool:
    # bfloat16 of ml_dtypes is of kind V.
    return array.dtype.kind in "fcV"


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _noise(a: Array, b: Array) -> float:
    """Return the root of the noise over the signal, over values that are finite in both and no fill."""
    finite = np.isfinite(a) & np.isfinite(b) & ~is_fill(a)
    signal, noise = float(np.linalg.norm(a[finite])), float(np.linalg.norm(a[finite] - b[finite]))
    return noise / signal if signal else noise


def _first_unequal(a: Array, b: Array) -> tuple[int, ...] | None:
    """Return the index of the first value that differs, if the arrays as a whole do."""
    if not a.size:
        return None
    if not _is_float(a):
        return _first(a != b) if np.mean(a != b) > UNEQUAL else None
    tolerance = HALF_TOLERANCE if a.dtype.itemsize == 2 else TOLERANCE
    a, b = _wide(a), _wide(b)
    finite = np.isfinite(a) & ~is_fill(a)
    odd = ~finite & ~np.isclose(a, b, equal_nan=True) | finite & ~np.isfinite(b)
    if odd.any():
        return _first(odd)
    if _noise(a, b) <= tolerance:
        return None
    apart = np.abs(np.where(finite, a, 0) - np.where(finite, b, 0))
    return _first(apart > tolerance * np.sqrt(np.mean(np.square(np.abs(a[finite])))))


def _first(wrong: Array) -> tuple[int, ...]:
    return tuple(np.argwhere(wrong)[0])
