"""The choice between quantized models: the fastest that agrees well enough with the original."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from compress.diagnose.metrics import Loss, loss
from compress.diagnose.sensitivity import Switchboard, noise_of_each
from compress.diagnose.timing import Stopwatch, processor_ratio
from compress.errors import DataError, ModelError, PassError
from compress.graph import batch
from compress.graph.layers import layers
from compress.graph.session import session
from compress.model import Model
from compress.quantize.placement import Between, Table, seconds_to_part
from compress.quantize.ways import Way

JUDGING = 4
"""Every fourth calibration batch is used to judge models, and not to calibrate."""
MOST_BATCHES = 4
"""Largest number of batches that judge."""
MOST_SAMPLES = 32
"""Largest number of samples on which the interval of a stated minimum rests."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a quantized model keeps of the original.

    Attributes:
        enough_db: signal-to-noise ratio that is good enough.
        least_db: what is too little.
        is_stated: whether `least_db` is a promise: then the lower end of its interval counts.
        max_drop: points of the metric that may be lost; None if it is not measured.
        metric: its name.
    """

    enough_db: float
    least_db: float
    is_stated: bool = False
    max_drop: float | None = None
    metric: str = "accuracy"

    def __str__(self) -> str:
        wanted = [f"{self.least_db:g} dB"]
        if self.max_drop is not None:
            wanted.append(f"{self.metric} within {self.max_drop:g} of the original's")
        return " and ".join(wanted)


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
    """Time of a run over the original's, the worse of one sample and one batch; of one sample alone where
    that was too much already; NaN before it is timed."""
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
        aim: what is to be kept of it.

    Raises:
        DataError: the metric cannot be measured on the calibration data.

    Attributes:
        model: the original, folded, with the data to calibrate on.
        aim: what is to be kept.
        failures: ways that cannot be taken, and why.
        tables: what was measured of the layers of a way, by its name.
    """

    def __init__(self, model: Model, original: ir.Model, aim: Aim) -> None:
        assert model.calibration is not None
        self._watch = Stopwatch()
        self.model = model.copy()
        self.model.calibration, judging = split(model.calibration)
        self.aim = aim
        self.failures: list[str] = []
        self._profiles: dict[frozenset[str], list[dict[str, float]]] = {}
        self.tables: dict[str, Table] = {}
        inputs = model.graph.inputs
        self._batches = [feeds for feeds, _ in itertools.islice(judging.batches(inputs), MOST_BATCHES)]
        self._given = original
        run = partial(session(original, threads=1).run, None)
        first = self._batches[0]
        axes = batch.find(run, inputs, [first], judging.batch_axis)
        self._axes, self._rows = axes, min(axes.size(first), ROWS)
        self._feeds = axes.sample(first), first
        self._closeness = Closeness(original, self._batches, run)
        self._judging = judging
        if aim.max_drop is not None:  # what is wrong with labels shows before the search, not after it
            self._loss(original)

    @cached_property
    def _original(self) -> Run:
        """Runs the original; opened only to time, since a session of a large model takes its size again."""
        return partial(session(self._given, threads=1).run, None)

    @cached_property
    def _by_sample(self) -> Closeness:
        """Compares sample by sample, where the batch axis is known."""
        samples = (
            self._axes.sample(feeds, row) for feeds in self._batches for row in range(self._axes.size(feeds))
        )
        return Closeness(self._given, [*itertools.islice(samples, MOST_SAMPLES)])

    @property
    def has_time(self) -> bool:
        """Whether the search may go on; what is needed for a result is done without asking."""
        return self.seconds_left > 0

    @property
    def seconds_left(self) -> float:
        """Time that is left to the search; below zero where it is over."""
        return SEARCH_SECONDS - self._watch.seconds

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

    def verdict(self, model: Model) -> tuple[bool, str]:
        """Tell whether a model keeps what is promised, and what was found."""
        kept, found, aim = True, list[str](), self.aim
        if aim.is_stated:
            low = self._by_sample.least(model.ir)
            kept = low >= aim.least_db
            found.append(f"at least {low:.1f} dB with 95 % confidence")
        if aim.max_drop is not None:
            lost = self._loss(model.ir)
            kept = kept and lost.points <= aim.max_drop
            found.append(str(lost))
        return kept, "; ".join(found)

    def _loss(self, model: ir.Model) -> Loss:
        """Return what another model loses of the metric on the batches that judge, all of them."""
        run = partial(session(model, threads=1).run, None)
        return loss(self.aim.metric, run, self._original, self._judging.batches(self.model.graph.inputs))

    def timed(self, candidates: Sequence[Candidate], target: float) -> list[Candidate]:
        """Return the candidates with their times; those that `choose` cannot take any more get one sample's.

        The last ones, which multiply the most integers, go first.
        """
        timed: list[Candidate] = []
        for each in reversed(candidates):
            rivals = (other.ratio for other in timed if other.snr_db >= min(each.snr_db, target))
            timed.append(self._timed_up_to(min(rivals, default=math.inf) * TIMING_NOISE, each))
        return timed[::-1]

    def _timed_up_to(self, longest: float, candidate: Candidate) -> Candidate:
        """Return the candidate with its time, measured in turn with the original's."""
        run, ratio = partial(session(candidate.model.ir, threads=1).run, None), 0.0
        for feeds in self._feeds:
            if ratio <= longest:
                ratio = max(ratio, processor_ratio(run, self._original, feeds, TIMED_SECONDS))
        return replace(candidate, ratio=ratio)

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
        names = frozenset(weights).union(layer.name for layer in layers(self.model.graph))
        if names not in self._profiles:
            self._profiles[names] = self._profile(self.model, names)
        runs = [sum(each.values()) for each in self._profiles[names]]
        profiles = self._profiles[names], self._profile(whole.model, names)
        floats, integers = (_shares(each, runs, weights) for each in profiles)
        unit, numbers = seconds_to_part() / runs[-1], way.numbers()
        between = [
            Between(names, values[names], unit * max(numbers.get(name, 0) for name in group))
            for names, group in groups.items()
        ]
        table = self.tables[way.name] = Table(weights, floats, integers, between)
        return table

    def _profile(self, model: Model, names: Collection[str]) -> list[dict[str, float]]:
        """Return the time of each of these layers, for one sample and for one batch."""
        return [layer_times(model.ir, names, feeds) for feeds in self._feeds]


def _shares(
    profiles: Sequence[Mapping[str, float]], runs: Sequence[float], names: Collection[str]
) -> dict[str, float]:
    """Return the times of these layers in parts of the original's run, the mean over several inputs.

    Those of all others stand under the empty name.
    """
    shares: dict[str, float] = defaultdict(float)
    for profile, run in zip(profiles, runs, strict=True):
        for name, seconds in profile.items():
            shares[name if name in names else ""] += seconds / run / len(runs)
    return dict(shares)


def split(data: Data) -> tuple[Data, Data]:
    """Return data for calibration and data to judge by; with too few batches, both are all the data."""
    if sum(1 for _ in itertools.islice(data.raw(), JUDGING)) < JUDGING:
        return data, data

    def part(judges: bool) -> Iterator[Any]:
        batches = enumerate(data.raw())
        return (batch for number, batch in batches if (number % JUDGING == JUDGING - 1) == judges)

    return data.over(partial(part, False)), data.over(partial(part, True))


def choose(candidates: Sequence[Candidate], target: float, least: float) -> Candidate | None:
    """Return the fastest candidate that agrees well enough; of equally fast ones, what agrees best.

    Where none that reaches `target` is faster than the original, `least` is enough; None if none reaches it.
    """
    good = [each for each in candidates if each.snr_db >= target]
    if min((each.ratio for each in good), default=math.inf) > WORTHWHILE:
        good = [each for each in candidates if each.snr_db >= least]
    quickest = min((each.ratio for each in good), default=math.nan)
    alike = [each for each in good if each.ratio <= quickest * TIMING_NOISE]
    return max(alike, key=lambda each: each.snr_db, default=None)
