"""The choice between quantized models: the fastest that agrees well enough with the original."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from compress.changes import Change
from compress.data import Data
from compress.diagnose.closeness import Closeness
from compress.diagnose.sensitivity import output_noise
from compress.diagnose.timing import processor_ratio
from compress.errors import DataError, ModelError, PassError
from compress.graph import batch
from compress.graph.session import session
from compress.model import Model
from compress.quantize.ways import Way

JUDGING = 4
"""Every fourth calibration batch is used to judge models, and not to calibrate."""
MOST_BATCHES = 4
"""Largest number of batches that judge."""
TIMED_SECONDS = 1.0
"""Time spent on each of two timings of a candidate: one sample and one batch."""
TIMING_NOISE = 1.05
"""Ratio up to which timings count as equal: those of one model differ by this on an ordinary machine."""
WORTHWHILE = 0.9
"""Time relative to the original's up to which a candidate counts as faster."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A quantized model and how it compares with the original."""

    name: str
    way: Way
    model: Model
    changes: Sequence[Change]
    snr_db: float
    """How close it is, in decibels; infinite where nothing differs, -infinite where that is not known."""
    ratio: float = math.nan
    """Time of a run over the original's, the worse of one sample and one batch; NaN before it is timed."""

    def __str__(self) -> str:
        timed = "" if math.isnan(self.ratio) else f", {self.ratio:.2f}x the time"
        close = f"{self.snr_db:.1f} dB" if math.isfinite(self.snr_db) else "no difference"
        close = "cannot be compared" if self.snr_db == -math.inf else close
        return f"{self.name}: {close}{timed}"


class Judge:
    """Measures models on calibration batches that did not calibrate them.

    Attributes:
        model: the original, folded, with the data to calibrate on.
        failures: ways that cannot be taken, and why.
    """

    def __init__(self, model: Model) -> None:
        assert model.calibration is not None
        self.model = model.copy()
        self.model.calibration, judging = split(model.calibration)
        self.failures: list[str] = []
        inputs = model.graph.inputs
        self._batches = [feeds for feeds, _ in itertools.islice(judging.batches(inputs), MOST_BATCHES)]
        self._original = partial(session(self.model.ir, threads=1).run, None)
        first = self._batches[0]
        axes = batch.find(self._original, inputs, [first], judging.batch_axis)
        self._timed = axes.sample(first), first
        self._closeness = Closeness(self.model.ir, self._batches, self._original)

    @contextmanager
    def refusals(self, name: str) -> Iterator[None]:
        """Note why a way cannot be taken, and go on with another one."""
        try:
            yield
        except (DataError, ModelError, PassError) as error:
            self.failures.append(f"{name}: {error}")

    def attempt(self, way: Way, floats: Sequence[str] = ()) -> Candidate:
        """Measure how well a way agrees with the original; the layers named `floats` stay in float."""
        name = way.name
        if floats:
            kernels = " in blocked kernels" if way.operators == "onnxruntime" else ""
            name += f", but {len(floats)} of {len(way.layers())} layers{kernels}"
        model, changes = way.take(floats)
        return Candidate(name, way, model, changes, self.closeness(model))

    def closeness(self, model: Model) -> float:
        """Return how close another model is to the original, in decibels."""
        return self._closeness(model.ir)

    def timed(self, candidate: Candidate) -> Candidate:
        """Return the candidate with its time, measured in turn with the original's."""
        run = partial(session(candidate.model.ir, threads=1).run, None)
        ratios = [processor_ratio(run, self._original, feeds, TIMED_SECONDS) for feeds in self._timed]
        return replace(candidate, ratio=max(ratios))

    def noise(self, way: Way) -> dict[str, float]:
        """Return the noise that each layer which multiplies integers adds to the outputs of one batch."""
        return output_noise(way.model, way.layers(), self._batches[:1])


def split(data: Data) -> tuple[Data, Data]:
    """Return data for calibration and data to judge by; with too few batches, both are all the data."""
    if sum(1 for _ in itertools.islice(data.raw(), JUDGING)) < JUDGING:
        return data, data

    def part(judges: bool) -> Iterator[Any]:
        batches = enumerate(data.raw())
        return (batch for number, batch in batches if (number % JUDGING == JUDGING - 1) == judges)

    return data.over(partial(part, False)), data.over(partial(part, True))


def choose(candidates: Sequence[Candidate], target: float, least: float) -> Candidate:
    """Return the fastest candidate that agrees well enough; of equally fast ones, what agrees best.

    Where none that reaches `target` is faster than the original, `least` is enough.
    """
    good = [each for each in candidates if each.snr_db >= target]
    if min(each.ratio for each in good) > WORTHWHILE:
        good = [each for each in candidates if each.snr_db >= least]
    quickest = min(each.ratio for each in good)
    return max((each for each in good if each.ratio <= quickest * TIMING_NOISE), key=lambda e: e.snr_db)
