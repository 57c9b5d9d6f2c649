"""Eight bits without settings: integer arithmetic where it agrees with the original and runs faster."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compress.passes.base import Change, Pass
from compress.passes.int8_static import Int8Static, observe_ranges
from compress.passes.int8_weights import Int8Weights
from compress.passes.smooth import Smooth

if TYPE_CHECKING:
    from compress.data import Data
    from compress.model import Model
    from compress.passes.int8_static import Observer

JUDGING = 4
"""Every fourth calibration batch judges and does not calibrate."""
MOST_BATCHES = 4
"""Batches that judge."""
TIMED_RUNS = 11
NOISE_OF_TIMING = 1.05
"""Ratios of two runs of one model scatter about this far on an ordinary machine."""
WEIGHTS_MARGIN_DB = 2.0
"""How much less than 8-bit weights alone integer arithmetic may agree, where these are under the target."""
BISECTIONS = 4
"""Steps in which the number of layers that go back to 8-bit weights is found."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to quantize the model, and how well its outputs agree with the original's."""

    story: str
    model: Model
    snr_db: float
    ratio: float = math.nan
    """Time of a run over the original's, the worse of one sample and one batch; NaN before it is timed."""

    def __str__(self) -> str:
        timed = "" if math.isnan(self.ratio) else f", {self.ratio:.2f}x the time"
        return f"{self.story}: {self.snr_db:.1f} dB{timed}"


class Int8(Pass, name="int8"):
    """Quantize to 8 bits so that the network keeps its accuracy and runs no slower, whatever it is.

    Several ways are measured on calibration data held back from calibration: integer arithmetic with
    two kinds of ranges, with and without smoothing; 8-bit weights in the runtime's blocked kernels;
    8-bit weights that become float as the model is loaded. Where integer arithmetic agrees too
    little with the original, the layers that add most noise go back to 8-bit weights. The fastest
    way that agrees well enough wins, and the account says what the others measured. Files shrink 3.5
    to 4 times in every case. Speed is measured on this machine: run it on the kind that will serve.
    Where two ways are about as fast, another run may choose the other.

    Example: ``variants: {small: [int8]}``
    """

    quantizes: ClassVar[bool] = True

    min_snr_db: float = Field(default=30.0, gt=0)
    """Signal-to-noise ratio against the original that is good enough; 30 dB changes hardly any decision."""

    def apply(self, model: Model) -> list[Change]:
        """Try, measure, and keep the best."""
        from compress.passes.fold import fold

        done = len(model.changes)
        fold(model.ir)
        if model.calibration is None:
            stored = self._weights("expanded")(model)
            model.ir = stored.ir
            reason = "chosen without calibration data: 8-bit weights, float arithmetic"
            return _account(stored.changes[done:], reason)
        judge = _Judge(model)
        weights = [
            judge.measure("8-bit weights, float arithmetic", self._weights("expanded")(judge.model)),
            judge.measure("8-bit weights, blocked kernels", self._weights("onnxruntime")(judge.model)),
        ]
        target = min(self.min_snr_db, weights[0].snr_db - WEIGHTS_MARGIN_DB)
        candidates = [judge.timed(each) for each in (*weights, *self._integer(judge, target))]
        best = _choose(candidates, target)
        model.ir = best.model.ir
        others = "; ".join(str(each) for each in candidates if each is not best)
        return _account(best.model.changes[done:], f"chosen: {best}. Not chosen: {others}")

    def _weights(self, operators: Any) -> Int8Weights:
        return Int8Weights(include=self.include, exclude=self.exclude, operators=operators)

    def _integer(self, judge: _Judge, target: float) -> list[Candidate]:
        """Return the best way in integers, with as many layers back on 8-bit weights as `target` takes."""
        plain = Int8Static(include=self.include, exclude=self.exclude)
        if not plain.regions(judge.model).kernels:
            return []
        attempts, tried = [], []
        for attempt in self._attempts(judge, plain):
            attempts.append(attempt)
            tried.append(judge.measure(attempt.story, self._apply(attempt)))
            if tried[-1].snr_db >= target:
                return [tried[-1]]
        # Smoothed weights are harder to round, so layers that go back to weights want the plain ones.
        first = attempts[0] if tried[0].snr_db >= tried[1].snr_db else attempts[1]
        best = max(tried, key=lambda each: each.snr_db)
        return [best, self._with_fewer_integers(judge, first, target)]

    def _attempts(self, judge: _Judge, plain: Int8Static) -> Iterator[_Attempt]:
        """Yield ways to place integers, the simplest first: it depends least on the calibration data."""
        from compress.numerics.ranges import Histogram

        smooth = Smooth(include=self.include, exclude=self.exclude)
        for story, prepare in (("integers", None), ("integers, smoothed", smooth)):
            model = prepare(judge.model) if prepare else judge.model
            if prepare and not any(change.action for change in model.changes[len(judge.model.changes) :]):
                return
            histograms = observe_ranges(model, plain.regions(model).readers, Histogram)
            for calibration in ("minmax", "mse"):
                static = plain.model_copy(update={"calibration": calibration})
                yield _Attempt(f"{story}, range {calibration}", model, histograms, static)

    def _apply(self, attempt: _Attempt, floats: Sequence[str] = ()) -> Model:
        """Run an attempt's layers in integers but for `floats`; store all other weights in 8 bits."""
        return self._weights("expanded")(attempt.apply(floats))

    def _with_fewer_integers(self, judge: _Judge, attempt: _Attempt, target: float) -> Candidate:
        """Find how many of the noisiest layers must go back to 8-bit weights to agree well enough."""
        ranked = judge.ranked(attempt)
        best = judge.measure(f"{attempt.story}, no layer", self._apply(attempt, ranked))
        low, high = 0, len(ranked)
        for _ in range(BISECTIONS):
            middle = (low + high) // 2
            story = f"{attempt.story}, but {middle} of {len(ranked)} layers"
            tried = judge.measure(story, self._apply(attempt, ranked[:middle]))
            low, high = (low, middle) if tried.snr_db >= target else (middle, high)
            best = tried if tried.snr_db >= target else best
        return best


def _account(changes: Sequence[Change], choice: str) -> list[Change]:
    """Return the changes of the layers and, if there are any, what was chosen."""
    if any(change.action for change in changes):
        return [*changes, Change("model", choice)]
    return list(changes)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A folded float model, the histograms of its activations, and how to place integers in it."""

    story: str
    model: Model
    observed: Mapping[str, Observer]
    static: Int8Static

    def apply(self, floats: Sequence[str]) -> Model:
        """Return the model in integers, but for the layers named `floats`."""
        result = self.model.copy()
        static = self.static.model_copy(update={"exclude": (*self.static.exclude, *map(_literal, floats))})
        changes = [replace(change, by=static.name) for change in static.place(result, self.observed)]
        result.changes = (*result.changes, *changes)
        return result


def _literal(name: str) -> str:
    """Return a pattern that matches a name and nothing else."""
    return re.sub(r"([*?[])", r"[\1]", name)


class _Judge:
    """Measures models on calibration batches that did not calibrate them."""

    def __init__(self, model: Model) -> None:
        from compress.evaluate import single

        assert model.calibration is not None
        self.model = model.copy()
        self.model.calibration, judging = _split(model.calibration)
        inputs = model.graph.inputs
        self.batches = [feeds for feeds, _ in itertools.islice(judging.batches(inputs), MOST_BATCHES)]
        batched = [each.name or "" for each in inputs if each.shape and not isinstance(each.shape[0], int)]
        self.sample = single(self.batches[0], batched)

    def measure(self, story: str, model: Model) -> Candidate:
        """Measure how well a model agrees with the original."""
        from compress.evaluate import agreement

        snr_db = agreement(model.run, self.model.run, self.batches).snr_db
        model.release()
        return Candidate(story, model, snr_db)

    def timed(self, candidate: Candidate) -> Candidate:
        """Add the time of a run in turn with the original's."""
        from compress.evaluate import latency

        feeds = (self.sample, self.batches[0])
        ratios = [latency(candidate.model.run, self.model.run, each, TIMED_RUNS).ratio for each in feeds]
        candidate.model.release()
        return replace(candidate, ratio=max(ratios))

    def ranked(self, attempt: _Attempt) -> list[str]:
        """Return the names of the layers that run in integers, the noisiest first."""
        from compress.graph.sensitivity import local_noise

        kernels = [layer.name for layer in attempt.static.regions(attempt.model).kernels]
        noise = local_noise(attempt.model, kernels, self.batches)
        return sorted(noise, key=lambda name: -noise[name])


def _split(source: Data) -> tuple[Data, Data]:
    """Return data to calibrate with and data to judge with; with too few batches both are all of them."""
    from compress.data import Data

    if sum(1 for _ in itertools.islice(source.raw(), JUDGING)) < JUDGING:
        return source, source

    def part(judges: bool) -> Iterator[Any]:
        batches = enumerate(source.raw())
        return (batch for number, batch in batches if (number % JUDGING == JUDGING - 1) == judges)

    return Data(partial(part, False), source.kind), Data(partial(part, True), source.kind)


def _choose(candidates: Sequence[Candidate], target: float) -> Candidate:
    """Return the fastest candidate that agrees well enough; of equally fast ones, what agrees best."""
    good = [each for each in candidates if each.snr_db >= target]
    quickest = min(each.ratio for each in good)
    return max((each for each in good if each.ratio <= quickest * NOISE_OF_TIMING), key=lambda e: e.snr_db)
