"""Ranges of activations, observed batch by batch; only extremes or a histogram are kept in memory.

An observer takes arrays with `observe` and gives ``(low, high)`` with `range`. Zero always lies
within. The module needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compress.numerics.formats import IntegerFormat

Array: TypeAlias = NDArray[Any]
Method = Literal["minmax", "percentile", "entropy", "mse"]

UINT8 = IntegerFormat(8, symmetric=False, signed=False)
"""Activations of most integer kernels."""
BLOCK = 1 << 16
"""Elements counted at once, so that the work stays in a core's cache."""
SHRINK = tuple(0.96**step for step in range(96))
"""Ranges that the entropy and mse searches try, as fractions of the widest range (down to 2 %)."""
NEARBY = (1.0, 0.97, 0.98, 0.99, 1.01, 1.02, 1.03)
"""Fractions of the best range in `SHRINK` that are tried next."""


class MinMax:
    """The lowest and the highest value observed, of the whole tensor or of each index of `axis`."""

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.low: Array = np.zeros(())
        self.high: Array = np.zeros(())

    def observe(self, array: Array) -> None:
        """Take the extremes of one more array; an empty one changes nothing.

        Raises:
            ValueError: the array holds NaN or infinite values.
        """
        if array.size:
            self._merge(*extremes(array, self.axis))

    def _merge(self, low: Array, high: Array) -> None:
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def range(self, integers: IntegerFormat = UINT8) -> tuple[Array, Array]:
        """Return low and high, float64, scalars or one for each index of the axis.

        A symmetric format makes low the negative of high.
        """
        return _mirrored(self.low, self.high) if integers.symmetric else (self.low, self.high)


class MovingAverage(MinMax):
    """The moving average of the arrays' extremes: a plain mean at first, then an exponential average.

    A new array has the weight ``max(1 / arrays so far, rate)``. The first arrays so count alike, and
    later ones replace older ones at `rate` (PyTorch's ``averaging_constant``).
    """

    def __init__(self, axis: int | None = None, rate: float = 0.01) -> None:
        super().__init__(axis)
        self.rate = rate
        self.arrays = 0

    def _merge(self, low: Array, high: Array) -> None:
        self.arrays += 1
        weight = max(1 / self.arrays, self.rate)
        self.low = self.low + weight * (np.minimum(low, 0) - self.low)
        self.high = self.high + weight * (np.maximum(high, 0) - self.high)


class Histogram:
    """Counts in equal bins, which become three times as wide whenever a value falls outside.

    Bin j holds the values in ``[(j - ½) width, (j + ½) width)``. Widening by three merges whole bins
    and keeps zero, which quantization represents exactly, in the middle of a bin. Memory is `bins`
    integers, however much data is observed.

    Attributes:
        bins: how many there are; at least a sixth of them span the data.
        counts: [bins] values in each.
        first: number j of the lowest bin.
        width: width of a bin.
        low, high: exact extremes of the data, zero included.
    """

    def __init__(self, bins: int = 8192) -> None:
        self.bins = bins
        self.counts = np.zeros(bins, np.int64)
        self.first = -bins // 2
        self.width = 0.0
        self.low = 0.0
        self.high = 0.0
        self._known: dict[tuple[Method, IntegerFormat, float], tuple[float, float]] = {}

    def observe(self, array: Array) -> None:
        """Count one more array; an empty one changes nothing.

        Raises:
            ValueError: the array holds NaN or infinite values.
        """
        if not array.size:
            return
        self._known.clear()
        low, high = (float(end) for end in extremes(array))
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.low == self.high:
            self.counts[-self.first] += array.size
            return
        self._fit()
        flat = array.reshape(-1)
        exact = np.float32 if array.dtype in (np.float16, np.float32) else np.float64
        scaled = np.empty(min(flat.size, BLOCK), exact)
        index = np.empty(scaled.size, np.intp)
        factor, shift = exact(1 / self.width), exact(0.5 - self.first)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            part = scaled[: block.size]
            np.multiply(block, factor, out=part, casting="unsafe")
            np.add(part, shift, out=part)
            index[: block.size] = part  # truncation is floor, for nothing is negative
            np.add(self.counts, np.bincount(index[: block.size], minlength=self.bins), out=self.counts)

    def range(
        self,
        method: Method = "mse",
        integers: IntegerFormat = UINT8,
        percentile: float = 99.99,
    ) -> tuple[float, float]:
        """Return the range ``(low, high)`` to quantize.

        Args:
            method: "minmax", the extremes; "percentile", the range that holds this share of the values;
                "entropy", the least Kullback-Leibler divergence from the data's distribution
                (Migacz, "8-bit inference with TensorRT", GTC 2017), but with every end at which more values
                pile up than a step's even share; "mse", the least squared error.
            integers: what the values become; a symmetric format makes low the negative of high. With
                more than 8 bits, entropy and mse give the extremes, because clipping then costs more than
                finer steps gain.
            percentile: share of the values in percent, for the method of that name.
        """
        key = method, integers, percentile
        if key not in self._known:  # a search takes long, and the same range is asked for again and again
            self._known[key] = self._range(*key)
        return self._known[key]

    def _range(self, method: Method, integers: IntegerFormat, percentile: float) -> tuple[float, float]:
        low, high, symmetric, bits = self.low, self.high, integers.symmetric, integers.bits
        if symmetric:
            low, high = _mirrored(low, high)
        if method == "minmax" or self.width == 0.0 or low == high:
            return low, high
        if method == "percentile":
            return self._percentile(percentile, symmetric)
        if bits > 8:
            return low, high
        filled = np.flatnonzero(self.counts)
        used = slice(filled[0], filled[-1] + 1)
        centers = (np.arange(self.bins)[used] + self.first) * self.width
        counts = self.counts[used].astype(np.float64)
        if method == "mse":
            return _search(lambda a, b: _squared_error(centers, counts, a, b, bits), low, high, symmetric)
        # Where values pile up at an end, as a Clip makes them, that end is no tail to be cut off.
        share = counts.sum() / 2**bits
        least = self.low if counts[0] > share else 0.0
        most = self.high if counts[-1] > share else 0.0
        # Zeros, of which a ReLU makes many, are exact in any range and must not decide it.
        zero = int(np.argmin(np.abs(centers)))
        counts[zero] = min(counts[zero], np.pad(counts, 1)[[zero, zero + 2]].max())

        def loss(a: float, b: float) -> float:
            return _divergence(centers, counts, a, b, bits) if a <= least and b >= most else np.inf

        return _search(loss, low, high, symmetric)

    def _fit(self) -> None:
        """Widen and shift the bins until [low, high] lies within."""
        if self.width == 0.0:
            # Half of the bins stay free for later data; the inverse of the width must be finite.
            self.width = max((self.high - self.low) * 2 / self.bins, 1e-37)
        factor = 1
        while (self.high - self.low) / (self.width * factor) > self.bins - 3:
            factor *= 3
        lowest = int(np.floor(self.low / (self.width * factor) + 0.5))
        highest = int(np.floor(self.high / (self.width * factor) + 0.5))
        if factor == 1 and self.first < lowest and highest < self.first + self.bins - 1:
            return
        first = lowest - (self.bins - 1 - (highest - lowest)) // 2
        used = np.flatnonzero(self.counts)
        merged = min(factor, 3**30)  # merges all, and fits into the index type
        numbers = (used + self.first + (merged - 1) // 2) // merged
        counts = np.zeros(self.bins, np.int64)
        np.add.at(counts, numbers - first, self.counts[used])
        self.counts, self.first, self.width = counts, first, self.width * factor

    def _percentile(self, percentile: float, symmetric: bool) -> tuple[float, float]:
        edges = (np.arange(self.bins + 1) + self.first - 0.5) * self.width
        below = np.concatenate([[0], np.cumsum(self.counts)]) / self.counts.sum()
        cut = (1 - percentile / 100) / 2
        if symmetric:
            # The share within [-x, x] at every distance x from zero where a bin ends.
            distances = np.unique(np.abs(edges))
            share = np.interp(distances, edges, below) - np.interp(-distances, edges, below)
            high = min(float(np.interp(percentile / 100, share, distances)), max(-self.low, self.high))
            return -high, high
        low, high = np.interp(cut, below, edges), np.interp(1 - cut, below, edges)
        return max(min(float(low), 0.0), self.low), min(max(float(high), 0.0), self.high)


def extremes(array: Array, axis: int | None = None) -> tuple[Array, Array]:
    """Return the lowest and highest value, float64, of the array or of each index of `axis`.

    Raises:
        ValueError: the array holds NaN or infinite values.
    """
    others = None if axis is None else tuple(i for i in range(array.ndim) if i != axis % array.ndim)
    low, high = np.asarray(array.min(axis=others), np.float64), np.asarray(array.max(axis=others), np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("NaN or infinite values cannot be calibrated")
    return low, high


def scale_and_zero_point(
    low: Array | float, high: Array | float, integers: IntegerFormat = UINT8
) -> tuple[Array, Array]:
    """Return float32 scale and integer zero point (int32) that map [low, high] onto the integers.

    A range of no width gets scale 1.
    """
    lowest, highest = integers.limits
    steps, symmetric = highest - lowest, integers.symmetric
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    scale = np.maximum(-low, high) * 2 / steps if symmetric else high / steps - low / steps
    scale = np.where(scale < np.finfo(np.float32).tiny, 1.0, scale).astype(np.float32)
    if symmetric:
        return scale, np.full(scale.shape, integers.middle, np.int32)
    zero_point = np.clip(np.rint(lowest - low / scale), lowest, highest)
    return scale, zero_point.astype(np.int32)


def within(scale: float, zero_point: int, bounds: tuple[float, float], integers: IntegerFormat) -> float:
    """Return the scale, or the largest smaller one with which all integers stand for numbers within `bounds`.

    A runtime leaves a Clip out whose bounds the integers behind it do not exceed. Bounds on the wrong side of
    zero are ignored.
    """
    lowest, highest = integers.limits
    for steps, bound in ((zero_point - lowest, -bounds[0]), (highest - zero_point, bounds[1])):
        if steps > 0 and 0 < bound < scale * steps:
            scale = bound / steps
        while steps > 0 and 0 < bound < float(np.float32(scale) * np.float32(steps)):
            scale = float(np.nextafter(np.float32(scale), np.float32(0)))
    return scale


def _mirrored(low: Any, high: Any) -> tuple[Any, Any]:
    high = np.maximum(-low, high)
    return -high, high


def _search(
    loss: Callable[[float, float], float], low: float, high: float, symmetric: bool
) -> tuple[float, float]:
    """Shrink the range for the least loss: both ends together, then each alone."""

    def best(of: Callable[[float], float]) -> float:
        coarse = min(SHRINK, key=of)
        return min((min(coarse * fine, 1.0) for fine in NEARBY), key=of)

    both = best(lambda r: loss(low * r, high * r))
    low, high = low * both, high * both
    if symmetric or low == 0.0 or high == 0.0:
        return low, high
    high *= best(lambda r: loss(low, high * r))
    low *= best(lambda r: loss(low * r, high))
    return low, high


def _squared_error(centers: Array, counts: Array, low: float, high: float, bits: int) -> float:
    """Return the squared error of quantizing the histogram to `bits` over [low, high]."""
    integers = IntegerFormat(bits, symmetric=low == -high, signed=False)
    scale, zero = scale_and_zero_point(low, high, integers)
    rounded = np.clip(np.rint(centers / scale), -zero, 2**bits - 1 - zero) * scale
    return float(counts @ np.square(centers - rounded))


def _divergence(centers: Array, counts: Array, low: float, high: float, bits: int) -> float:
    """Return KL(P | Q) of the clipped histogram P and of Q, its quantization to `bits` over [low, high].

    P counts clipped values in its outermost bins. Q leaves them out, and spreads the mass of each
    quantization step evenly over the bins of that step that are not empty.
    """
    inside = (centers >= low) & (centers <= high)
    kept = counts[inside]
    if not kept.any():
        return np.inf
    p = kept.copy()
    p[0] += counts[centers < low].sum()
    p[-1] += counts[centers > high].sum()
    cell = np.rint((centers[inside] - low) * ((2**bits - 1) / (high - low))).astype(np.intp)
    mass = np.bincount(cell, kept)
    filled = np.bincount(cell, kept > 0)
    q = np.where(kept > 0, (mass / np.maximum(filled, 1))[cell], 0.0)
    some = p > 0
    p, q = p[some] / p.sum(), np.maximum(q[some] / kept.sum(), 1e-9)
    return float(p @ np.log(p / q))
