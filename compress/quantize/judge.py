"""The choice between quantized models: the fastest that agrees well enough with the original."""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import onnx_ir as ir

from compress.changes import Change
from compress.data import Data
from compress.diagnose.agreement import Run
from compress.diagnose.closeness import Closeness
from compress.diagnose.layer_times import layer_times
from compress.diagnose.sensitivity import Switchboard, noise_of_each
from compress.diagnose.timing import processor_ratio
from compress.errors import DataError, ModelError, PassError
from compress.graph import batch
from compress.graph.session import session
from compress.model import Model
from compress.quantize.placement import Between, Table, seconds_to_part
from compress.quantize.ways import Way

JUDGING = 4
"""Every fourth calibration batch is used to judge models, and not to calibrate."""
MOST_BATCHES = 4
"""Largest number of batches that judge."""
ROWS = 4
"""Samples on which the noise of single layers is measured."""
SEARCH_SECONDS = 150.0
"""Time after which no further way is tried; only large models come to that."""
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
    integers: frozenset[str] = frozenset()
    """Names of the layers that multiply integers."""

    def __str__(self) -> str:
        timed = "" if math.isnan(self.ratio) else f", {self.ratio:.2f}x the time"
        close = f"{self.snr_db:.1f} dB" if math.isfinite(self.snr_db) else "no difference"
        close = "cannot be compared" if self.snr_db == -math.inf else close
        return f"{self.name}: {close}{timed}"


class Judge:
    """Measures models on calibration batches that did not calibrate them.

    Args:
        model: a folded model with the data to calibrate on.
        original: what it was before, whose outputs and time count.

    Attributes:
        model: the original, folded, with the data to calibrate on.
        failures: ways that cannot be taken, and why.
        tables: what was measured of the layers of a way, by its name.
    """

    def __init__(self, model: Model, original: ir.Model) -> None:
        assert model.calibration is not None
        self._end = time.perf_counter() + SEARCH_SECONDS
        self.model = model.copy()
        self.model.calibration, judging = split(model.calibration)
        self.failures: list[str] = []
        self.tables: dict[str, Table] = {}
        inputs = model.graph.inputs
        self._batches = [feeds for feeds, _ in itertools.islice(judging.batches(inputs), MOST_BATCHES)]
        self._given = original
        run = partial(session(original, threads=1).run, None)
        first = self._batches[0]
        axes = batch.find(run, inputs, [first], judging.batch_axis)
        self._axes, self._rows = axes, min(axes.size(first), ROWS)
        self._timed = axes.sample(first), first
        self._closeness = Closeness(original, self._batches, run)

    @cached_property
    def _original(self) -> Run:
        """Runs the original; opened only to time, since a session of a large model takes its size again."""
        return partial(session(self._given, threads=1).run, None)

    @property
    def has_time(self) -> bool:
        """Whether the search may go on; what is needed for a result is done without asking."""
        return time.perf_counter() < self._end

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
        integers = frozenset(way.layers()).difference(floats)
        return Candidate(name, way, model, changes, self.closeness(model), integers=integers)

    def closeness(self, model: Model) -> float:
        """Return how close another model is to the original, in decibels."""
        return self._closeness(model.ir)

    def timed(self, candidate: Candidate) -> Candidate:
        """Return the candidate with its time, measured in turn with the original's."""
        run = partial(session(candidate.model.ir, threads=1).run, None)
        ratios = [processor_ratio(run, self._original, feeds, TIMED_SECONDS) for feeds in self._timed]
        return replace(candidate, ratio=max(ratios))

    def table(self, whole: Candidate, noisy: bool) -> Table:
        """Measure what is known of the layers that multiply integers in a candidate, and keep it.

        Args:
            whole: the candidate.
            noisy: whether noise is measured; else it is left at nothing.
        """
        way, codes = whole.way, whole.way.codes()
        groups: dict[frozenset[str], list[str]] = {}
        for name, (_, names) in codes.items():
            groups.setdefault(names, []).append(name)
        values: dict[frozenset[str], float] = dict.fromkeys(groups, 0.0)
        weights = dict.fromkeys(way.layers(), 0.0)
        if noisy:
            rounded = way.weights()
            few = self._axes.joined([self._axes.sample(self._batches[0], row) for row in range(self._rows)])
            board = Switchboard(way.model, {name: each for name, (each, _) in codes.items()}, rounded, [few])
            values, weights = noise_of_each(board, groups, list(weights))
        profiles = [
            [layer_times(each.ir, weights, feeds) for feeds in self._timed]
            for each in (self.model, whole.model)
        ]
        runs = [sum(each.values()) for each in profiles[0]]
        floats, integers = (_shares(each, runs) for each in profiles)
        unit, numbers = seconds_to_part() / runs[-1], way.numbers()
        between = [
            Between(names, values[names], unit * max(numbers.get(name, 0) for name in group))
            for names, group in groups.items()
        ]
        table = self.tables[way.name] = Table(weights, floats, integers, between)
        return table


def _shares(profiles: Sequence[Mapping[str, float]], runs: Sequence[float]) -> dict[str, float]:
    """Return the times of layers in parts of the original's run, the mean over several inputs."""
    shares: dict[str, float] = defaultdict(float)
    for profile, run in zip(profiles, runs, strict=True):
        for name, seconds in profile.items():
            shares[name] += seconds / run / len(runs)
    return dict(shares)


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
