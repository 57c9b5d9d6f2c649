"""Noise and its sources, layer by layer: the values of a variant beside those of the original."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from compress.graph.capture import activations

if TYPE_CHECKING:
    from compress.data import Feeds
    from compress.diagnose.sites import Quantizer, Site
    from compress.model import Model


@dataclass(slots=True)
class Sums:
    """Sums of squares over all batches of one pair of values."""

    signal: float = 0.0
    noise: float = 0.0
    plain_noise: float = 0.0
    """Noise of the variant as it stands in the file, where no integer kernel can saturate."""

    def update(self, original: np.ndarray, variant: np.ndarray, plain: np.ndarray) -> None:
        """Take in one batch; elements that are not finite in the original are left out."""
        if not original.shape == variant.shape == plain.shape:
            self.noise = self.plain_noise = np.inf
            return
        finite = np.isfinite(original)
        a, b, c = (each[finite].astype(np.float64) for each in (original, variant, plain))
        self.signal += float(np.square(a).sum())
        self.noise += float(np.square(a - b).sum())
        self.plain_noise += float(np.square(a - c).sum())

    @property
    def ratio(self) -> float:
        """Noise power over signal power."""
        return _over(self.noise, self.signal)

    @property
    def plain_ratio(self) -> float:
        """Noise power over signal power without the runtime's rewriting."""
        return _over(self.plain_noise, self.signal)


@dataclass(slots=True)
class Spread:
    """What a quantizer does to the original's values."""

    quantizer: Quantizer
    channel_axis: int
    count: int = 0
    clipped: int = 0
    signal: float = 0.0
    clipping: float = 0.0
    rounding: float = 0.0
    peaks: np.ndarray = field(default_factory=lambda: np.zeros(1))
    """Largest magnitude of every feature."""

    def update(self, values: np.ndarray) -> None:
        """Take in the original's values of one batch."""
        low, high, step = self.quantizer.low, self.quantizer.high, self.quantizer.step
        wide = values.astype(np.float64)
        if not step:
            step = float(wide.max(initial=0.0) - wide.min(initial=0.0)) / 255
        self.rounding += step**2 / 12 * wide.size
        excess = wide - np.clip(wide, low, high)
        self.count += wide.size
        # Less than half a step beyond the range is rounding.
        self.clipped += int((np.abs(excess) > step / 2).sum())
        self.signal += float(np.square(wide).sum())
        self.clipping += float(np.square(excess).sum())
        axis = self.channel_axis if wide.ndim > 1 else -1
        others = tuple(each for each in range(wide.ndim) if each != axis % wide.ndim)
        self.peaks = np.maximum(self.peaks, np.abs(wide).max(axis=others, initial=0.0))

    @property
    def clipped_share(self) -> float:
        """Share of the values outside of the range."""
        return self.clipped / max(self.count, 1)

    @property
    def clipping_ratio(self) -> float:
        """Power cut off over signal power."""
        return _over(self.clipping, self.signal)

    @property
    def rounding_ratio(self) -> float:
        """Power of uniform rounding noise, ``step^2 / 12`` a value, over signal power."""
        return _over(self.rounding, self.signal)

    @property
    def outlier(self) -> float:
        """Magnitude of the largest feature over that of the median feature that is not zero."""
        alive = self.peaks[self.peaks > 0]
        return float(alive.max() / np.median(alive)) if alive.size else 1.0


@dataclass(frozen=True, slots=True)
class Noise:
    """What was measured at the sites: sums by pair of values, spreads by site and value."""

    pairs: dict[tuple[str, str], Sums]
    spreads: dict[tuple[str, str], Spread]


def measure(original: Model, variant: Model, found: Sequence[Site], batches: Iterable[Feeds]) -> Noise:
    """Run the original and the variant on the batches, the variant with and without the runtime's rewriting.

    Memory holds the compared values of one batch.
    """
    pairs = {pair: Sums() for site in found for pair in (site.output, *site.inputs)}
    spreads = {
        (site.name, name): Spread(quantizer, site.channel_axis)
        for site in found
        for name, quantizer in site.quantizers.items()
    }
    ours = {theirs for _, theirs in pairs}
    wanted = [name for name, _ in pairs] + [name for _, name in spreads]
    batches = list(batches)
    runs: Iterator[tuple[dict[str, np.ndarray], ...]] = zip(
        activations(original.ir, wanted, batches),
        activations(variant.ir, ours, batches),
        activations(variant.ir, ours, batches, optimize=False),
        strict=True,
    )
    for reference, rewritten, plain in runs:
        for (name, theirs), sums in pairs.items():
            sums.update(reference[name], rewritten[theirs], plain[theirs])
        for (_, name), spread in spreads.items():
            spread.update(reference[name])
    return Noise(pairs, spreads)


def _over(power: float, signal: float) -> float:
    if signal > 0:
        return power / signal
    return np.inf if power > 0 else 0.0
