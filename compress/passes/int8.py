"""Eight bits without settings: integer arithmetic where it agrees with the original and runs faster."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.cpu import weight_bits
from compress.errors import DataError, ModelError, PassError
from compress.passes.base import Pass
from compress.passes.correct_bias import CorrectBias
from compress.passes.int8_dynamic import Int8Dynamic
from compress.passes.int8_static import Int8Static, observe_ranges
from compress.passes.integer_weights import Int8Weights
from compress.passes.smooth import Smooth

if TYPE_CHECKING:
    from compress.data import Data
    from compress.model import Model
    from compress.numerics.affine import Quantized
    from compress.passes.int8_static import Observer

P = TypeVar("P", bound=Pass)

JUDGING = 4
"""Every fourth calibration batch judges and does not calibrate."""
MOST_BATCHES = 4
"""Batches that judge."""
TIMED_SECONDS = 1.0
"""Time spent on each of two timings of a candidate: one sample and one batch."""
NOISE_OF_TIMING = 1.05
"""Ratios of two runs of one model scatter about this far on an ordinary machine."""
WORTHWHILE = 0.9
"""Time over the original's at which a way counts as faster."""
INDULGENCE_DB = 4.0
"""How much less than the target agreement may be where nothing else is faster."""
WEIGHTS_MARGIN_DB = 2.0
"""How much less than 8-bit weights alone integer arithmetic may agree, where these are under the target."""
BISECTIONS = 4
"""Steps in which the number of layers that go back to 8-bit weights is found."""
STORY = "integers, "
RANGES = ("minmax", "mse")
"""Kinds of ranges from calibration that are tried."""


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

    Several ways are measured on calibration data held back from calibration: integers in ranges from
    calibration, of two kinds; integers in ranges found at each run; one for convolutions and the other
    for linear and recurrent layers; 8-bit weights in the runtime's blocked kernels; 8-bit weights that
    become float as the model is loaded. Weights are rounded by GPTQ. Where integers agree too little
    with the original, smoothing and bias correction are tried, and the layers that add most noise go
    back to 8-bit weights. The fastest way that agrees well enough wins, and the account says what the
    others measured. Files
    shrink 3.5 to 4 times in every case. Speed is measured on one thread of this machine: run it on
    the kind that will serve. Where two ways are about as fast, another run may choose the other.

    Example: ``variants: {small: [int8]}``
    """

    quantizes: ClassVar[bool] = True

    min_snr_db: float = Field(default=28.0, gt=0)
    """Signal-to-noise ratio against the original that is good enough; 27 dB are a cosine of .999.
    Where nothing faster than the original reaches it, 4 dB less will do for what is faster."""

    def apply(self, model: Model) -> list[Change]:
        """Try, measure, and keep the best."""
        from compress.graph.fold import fold

        done = len(model.changes)
        fold(model.ir)
        if model.calibration is None:
            stored = self._weights("expanded")(model)
            model.ir = stored.ir
            reason = "chosen without calibration data: 8-bit weights, float arithmetic"
            return _account(stored.changes[done:], reason)
        judge = _Judge(model)
        plain = _Way("8-bit weights, float arithmetic", judge.model, self._weights("expanded"))
        plain = replace(plain, rounded=self._rounded(judge, judge.model))
        weights = judge.attempt(plain)
        target = min(self.min_snr_db, weights.snr_db - WEIGHTS_MARGIN_DB)
        candidates = [judge.timed(each) for each in (weights, *self._others(judge, plain, target))]
        best = _choose(candidates, target, target - INDULGENCE_DB)
        model.ir = best.model.ir
        others = [str(each) for each in candidates if each is not best] + judge.failures
        return _account(best.model.changes[done:], f"chosen: {best}. Not chosen: {'; '.join(others)}")

    def _weights(self, operators: Any) -> Int8Weights:
        return Int8Weights(include=self.include, exclude=self.exclude, operators=operators)

    def _rounded(self, judge: _Judge, model: Model) -> dict[int, dict[str, Quantized]]:
        """Return integers of weights that make up for each other's errors, by bits and name."""
        found: dict[int, dict[str, Quantized]] = {}
        with judge.refusals("rounding by GPTQ"):
            for bits in sorted({8, weight_bits("auto")}):
                careful = Int8Static(
                    include=self.include, exclude=self.exclude, rounding="gptq", weight_bits=bits
                )
                found[bits] = careful.rounded(model)
        return found

    def _others(self, judge: _Judge, plain: _Way, target: float) -> Iterator[Candidate]:
        """Yield the ways to multiply integers, where need be with layers back on weights alone."""
        blocked = replace(plain, story="8-bit weights, blocked kernels", weights=self._weights("onnxruntime"))
        with judge.refusals(blocked.story):
            yield judge.attempt(blocked)
        dynamic, static = self._best(judge, plain, target)
        ways = [way for way in (dynamic, static) if way is not None]
        if static is not None:
            ways += _mixed(static, self._dynamic())
        for way in ways:
            with judge.refusals(way.story):
                yield from self._enough(judge, way, target)

    def _dynamic(self) -> Int8Dynamic:
        return Int8Dynamic(include=self.include, exclude=self.exclude)

    def _best(self, judge: _Judge, plain: _Way, target: float) -> tuple[_Way | None, _Way | None]:
        """Return what agrees best of the ways with ranges of each run, and of those from calibration.

        Smoothing is tried where either does not agree well enough, and then correcting the biases of
        layers with ranges from calibration.
        """
        dynamic: list[_Way] = []
        static: list[_Way] = []
        for start in self._starts(judge, plain):
            for tried, make in ((dynamic, self._each_run), (static, self._calibrated)):
                if not tried or max(way.snr_db for way in tried) < target:
                    with judge.refusals(f"{start.story}ranges"):
                        tried += [replace(way, whole=judge.attempt(way)) for way in make(start)]
            if all(max((way.snr_db for way in each), default=target) >= target for each in (dynamic, static)):
                break
        best = max(static, key=lambda way: way.snr_db, default=None)
        if best is not None and best.snr_db < target:
            with judge.refusals(f"{best.story}, biases corrected"):
                mended = replace(best, story=f"{best.story}, biases corrected", corrected=True)
                static.append(replace(mended, whole=judge.attempt(mended)))
        first, second = (max(each, key=lambda way: way.snr_db, default=None) for each in (dynamic, static))
        return first, second

    def _starts(self, judge: _Judge, plain: _Way) -> Iterator[_Way]:
        """Yield the float model as it is, and smoothed."""
        yield replace(plain, story=STORY)
        smooth = Smooth(include=self.include, exclude=self.exclude)
        with judge.refusals(f"{STORY}smoothed"):
            model = smooth(judge.model)
            if any(change.action for change in model.changes[len(judge.model.changes) :]):
                rounded = self._rounded(judge, model)
                yield replace(plain, story=f"{STORY}smoothed, ", model=model, rounded=rounded)

    def _each_run(self, start: _Way) -> Iterator[_Way]:
        """Yield the way with ranges of each run."""
        dynamic = self._dynamic()
        if dynamic.find(start.model).names:
            yield replace(start, story=f"{start.story}each run's range", dynamic=dynamic)

    def _calibrated(self, start: _Way) -> Iterator[_Way]:
        """Yield the ways with ranges from calibration."""
        from compress.numerics.ranges import Histogram

        static = Int8Static(include=self.include, exclude=self.exclude)
        readers = static.regions(start.model).readers
        observed = observe_ranges(start.model, readers, Histogram) if readers else {}
        for calibration in RANGES if readers else ():
            chosen = static.model_copy(update={"calibration": calibration})
            story = f"{start.story}range {calibration}"
            yield replace(start, story=story, static=chosen, observed=observed)

    def _enough(self, judge: _Judge, way: _Way, target: float) -> Iterator[Candidate]:
        """Yield a way, with as many of its noisiest layers back on 8-bit weights as `target` takes."""
        whole = way.whole or judge.attempt(way)
        if whole.snr_db >= target - INDULGENCE_DB:
            yield whole
        if whole.snr_db >= target:
            return
        ranked = judge.ranked(way)
        found = []
        for operators in ("expanded", "onnxruntime"):
            back = replace(way, corrected=False, weights=self._weights(operators))
            found.append(_fewest(judge, back, ranked, target))
        yield from filter(None, found)
        if not any(found) and whole.snr_db < target - INDULGENCE_DB:
            judge.failures.append(str(whole))


def _fewest(judge: _Judge, way: _Way, ranked: Sequence[str], target: float) -> Candidate | None:
    """Return a way with the fewest layers, in the order of `ranked`, back on weights that reach `target`."""
    best = None
    low, high = 0, len(ranked)
    for _ in range(BISECTIONS):
        if high - low < 2:
            break
        middle = (low + high) // 2
        tried = judge.attempt(way, ranked[:middle])
        low, high = (low, middle) if tried.snr_db >= target else (middle, high)
        best = tried if tried.snr_db >= target else best
    return best


def _account(changes: Sequence[Change], choice: str) -> list[Change]:
    """Return the changes of the layers and, if there are any, what was chosen."""
    if any(change.action for change in changes):
        return [*changes, Change("model", choice)]
    return list(changes)


@dataclass(frozen=True, slots=True)
class _Way:
    """Which layers of a folded float model multiply integers, and in which ranges.

    Attributes:
        story: the same in words.
        model: the model.
        weights: stores the weights of all other layers.
        dynamic: the layers whose ranges each run finds, of those that `static` leaves.
        static: the layers whose ranges come from calibration.
        observed: their activations by name.
        rounded: integers of weights by bits and name; others are rounded to the nearest.
        corrected: whether biases are corrected in the end.
        whole: what it came to with all its layers, if that is known.
    """

    story: str
    model: Model
    weights: Int8Weights
    dynamic: Int8Dynamic | None = None
    static: Int8Static | None = None
    observed: Mapping[str, Observer] = field(default_factory=dict)
    rounded: Mapping[int, Mapping[str, Quantized]] = field(default_factory=dict)
    corrected: bool = False
    whole: Candidate | None = None

    @property
    def snr_db(self) -> float:
        """How well it agrees with the original, if that is known."""
        return -math.inf if self.whole is None else self.whole.snr_db

    def layers(self) -> list[str]:
        """Return the names of the layers that multiply integers."""
        static = [] if self.static is None else self.static.regions(self.model).kernels
        dynamic = [] if self.dynamic is None else self.dynamic.find(self.model).names
        return list(dict.fromkeys([*(layer.name for layer in static), *dynamic]))

    def apply(self, floats: Sequence[str] = ()) -> Model:
        """Return the quantized model; the layers named `floats` keep float arithmetic."""
        from onnx_ir.passes.common import NameFixPass

        result = self.model.copy()
        kernels = self.rounded.get(weight_bits("auto"), {})
        changes: list[Change] = []
        if self.static is not None:
            static = _without(self.static, floats)
            changes += _signed(static, static.place(result, self.observed, kernels))
        if self.dynamic is not None:
            dynamic = _without(self.dynamic, floats)
            changes += _signed(dynamic, dynamic.place(result, kernels))
        changes = [change for change in changes if change.action]
        others = quantize.store_int8_weights(
            result, self.weights.selects, operators=self.weights.operators, rounded=self.rounded.get(8)
        )
        changes += _signed(self.weights, others)
        NameFixPass()(result.ir)
        if self.corrected:
            mend = CorrectBias()
            changes += _signed(mend, mend.correct(result, self.model))
        result.changes = (*result.changes, *changes)
        return result


def _signed(each: Pass, changes: Sequence[Change]) -> list[Change]:
    """Return changes with the name of the pass that made them."""
    return [replace(change, by=each.name) for change in changes]


def _mixed(static: _Way, dynamic: Int8Dynamic) -> Iterator[_Way]:
    """Yield the ways in which some layers' ranges come from calibration and others from each run."""
    assert static.static is not None
    rest = replace(static, dynamic=dynamic, whole=None, story=f"{static.story}, each run's for other layers")
    if len(rest.layers()) > len(static.layers()):
        yield rest
    kernels = static.static.regions(static.model).kernels
    linear = [layer.name for layer in kernels if layer.node.op_type != "Conv"]
    if 0 < len(linear) < len(kernels):
        story = f"{static.story} for convolutions, each run's for other layers"
        yield replace(rest, static=_without(static.static, linear), story=story)


def _without(each: P, names: Sequence[str]) -> P:
    """Return the pass without the layers of these names."""
    literal = (re.sub(r"([*?[])", r"[\1]", name) for name in names)
    return each.model_copy(update={"exclude": (*each.exclude, *literal)})


class _Judge:
    """Measures models on calibration batches that did not calibrate them.

    Attributes:
        model: the original, folded, with the data to calibrate on.
        failures: ways that cannot be taken, and why.
    """

    def __init__(self, model: Model) -> None:
        from compress.diagnose.timing import single
        from compress.graph.session import session

        assert model.calibration is not None
        self.model = model.copy()
        self.model.calibration, judging = _split(model.calibration)
        self.failures: list[str] = []
        inputs = model.graph.inputs
        self._batches = list(judging.limited(MOST_BATCHES).feeds(inputs))
        self._timed = single(self._batches[0], inputs), self._batches[0]
        self._original = partial(session(self.model.ir, threads=1).run, None)

    @contextmanager
    def refusals(self, story: str) -> Iterator[str]:
        """Note why a way cannot be taken; another one will be."""
        try:
            yield story
        except (DataError, ModelError, PassError) as error:
            self.failures.append(f"{story}: {error}")

    def attempt(self, way: _Way, floats: Sequence[str] = ()) -> Candidate:
        """Measure a way whose layers `floats` stay in float."""
        story = way.story
        if floats:
            kernels = " in blocked kernels" if way.weights.operators == "onnxruntime" else ""
            story += f", but {len(floats)} of {len(way.layers())} layers{kernels}"
        return self.measure(story, way.apply(floats))

    def measure(self, story: str, model: Model) -> Candidate:
        """Measure how well a model agrees with the original."""
        from compress.diagnose.agreement import agreement

        snr_db = agreement(model.run, self._original, self._batches).snr_db
        model.release()
        return Candidate(story, model, snr_db)

    def timed(self, candidate: Candidate) -> Candidate:
        """Add the time of a run in turn with the original's."""
        from compress.diagnose.timing import processor_ratio
        from compress.graph.session import session

        run = partial(session(candidate.model.ir, threads=1).run, None)
        ratios = [processor_ratio(run, self._original, feeds, TIMED_SECONDS) for feeds in self._timed]
        return replace(candidate, ratio=max(ratios))

    def ranked(self, way: _Way) -> list[str]:
        """Return the names of the layers that multiply integers, the noisiest first."""
        from compress.diagnose.sensitivity import local_noise

        noise = local_noise(way.model, way.layers(), self._batches)
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


def _choose(candidates: Sequence[Candidate], target: float, least: float) -> Candidate:
    """Return the fastest candidate that agrees well enough; of equally fast ones, what agrees best.

    Where none that reaches `target` is faster than the original, `least` is enough.
    """
    good = [each for each in candidates if each.snr_db >= target]
    if min(each.ratio for each in good) > WORTHWHILE:
        good = [each for each in candidates if each.snr_db >= least]
    quickest = min(each.ratio for each in good)
    return max((each for each in good if each.ratio <= quickest * NOISE_OF_TIMING), key=lambda e: e.snr_db)
