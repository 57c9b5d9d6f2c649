"""Eight bits without settings: several ways are tried and measured, and the fastest good one is kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from onnx_ir.passes.common import NameFixPass

from compress.changes import Change
from compress.cpu import weight_bits
from compress.data import Data
from compress.diagnose.agreement import agreement
from compress.diagnose.sensitivity import local_noise
from compress.diagnose.timing import processor_ratio, single
from compress.errors import DataError, ModelError, PassError
from compress.graph.fold import fold
from compress.graph.layers import Layer
from compress.graph.session import session
from compress.model import Model
from compress.numerics.affine import Quantized
from compress.numerics.ranges import Histogram
from compress.quantize import dynamic, regions, static
from compress.quantize.bias import move_biases
from compress.quantize.plans import Operators
from compress.quantize.smoothing import smooth
from compress.quantize.weight_only import store_int8_weights

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
RANGES: tuple[static.Calibration, ...] = ("minmax", "mse")
"""Kinds of ranges from calibration that are tried."""

Chosen: TypeAlias = Callable[..., bool]
"""Tells by the names of a layer's node and weight whether the layer is to be quantized."""
Rounded: TypeAlias = Mapping[int, Mapping[str, Quantized]]
"""Integers of weights by their bits and the weight's name."""


def int8(model: Model, chosen: Chosen, min_snr_db: float) -> list[Change]:
    """Fold a model, try several ways to quantize its chosen layers to 8 bits, and keep the best, in place.

    Args:
        model: the model; changed in place. Without calibration data its weights alone are stored in 8 bits.
        chosen: called with the names of a layer's node and weight.
        min_snr_db: signal-to-noise ratio against the original that is good enough, in dB.

    Raises:
        PassError: a weight is not finite; the message names the layer.
    """
    done = len(model.changes)
    fold(model.ir)
    if model.calibration is None:
        changes = store_int8_weights(model, chosen, operators="expanded")
        return _account(changes, "chosen without calibration data: 8-bit weights, float arithmetic")
    judge = _Judge(model)
    best, others = _best(judge, chosen, min_snr_db)
    model.ir = best.model.ir
    rejected = "; ".join([*map(str, others), *judge.failures])
    return _account(best.model.changes[done:], f"chosen: {best}. Not chosen: {rejected}")


def _account(changes: Sequence[Change], choice: str) -> list[Change]:
    """Return the changes of the layers and, if there are any, what was chosen."""
    if any(change.action for change in changes):
        return [*changes, Change("model", choice)]
    return list(changes)


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


@dataclass(frozen=True, slots=True)
class _Way:
    """Which layers of a folded float model multiply integers, and in which ranges.

    Attributes:
        story: the same in words.
        model: the model.
        chosen: the layers to quantize.
        operators: which nodes compute with the weights of all layers that multiply no integers.
        each_run: the layers whose ranges each run finds, of those that `calibrated` leaves.
        calibrated: the layers whose ranges come from calibration.
        activations: how their activations become integers.
        observed: their activations by name.
        rounded: integers of weights; others are rounded to the nearest.
        corrected: whether biases are corrected in the end.
        whole: what it came to with all its layers, if that is known.
    """

    story: str
    model: Model
    chosen: Chosen
    operators: Operators = "expanded"
    each_run: Chosen | None = None
    calibrated: Chosen | None = None
    activations: static.Activations = field(default_factory=static.Activations)
    observed: Mapping[str, static.Observer] = field(default_factory=dict)
    rounded: Rounded = field(default_factory=dict)
    corrected: bool = False
    whole: Candidate | None = None

    @property
    def snr_db(self) -> float:
        """How well it agrees with the original, if that is known."""
        return -math.inf if self.whole is None else self.whole.snr_db

    def kernels(self) -> list[Layer]:
        """Return the layers that multiply integers in ranges from calibration."""
        return [] if self.calibrated is None else regions.find(self.model.graph, self.calibrated).kernels

    def layers(self) -> list[str]:
        """Return the names of the layers that multiply integers."""
        others = [] if self.each_run is None else dynamic.find(self.model.graph, self.each_run).names
        return list(dict.fromkeys([*(layer.name for layer in self.kernels()), *others]))

    def apply(self, floats: Sequence[str] = ()) -> Model:
        """Return the quantized model; the layers named `floats` keep float arithmetic."""
        result = self.model.copy()
        bits = weight_bits("auto")
        kernels = self.rounded.get(bits, {})
        changes: list[Change] = []
        if self.calibrated is not None:
            found = regions.find(result.graph, _without(self.calibrated, floats))
            weights = static.Weights(bits, rounded=kernels)
            changes += static.place(result.graph, found, self.activations, self.observed, weights)
        if self.each_run is not None:
            others = dynamic.find(result.graph, _without(self.each_run, floats))
            changes += dynamic.place(result.graph, others, bits, kernels)
        changes = [change for change in changes if change.action]
        changes += store_int8_weights(
            result, self.chosen, operators=self.operators, rounded=self.rounded.get(8)
        )
        NameFixPass()(result.ir)
        if self.corrected:
            changes += move_biases(result, self.model, self.chosen)
        result.changes = (*result.changes, *changes)
        return result


def _without(chosen: Chosen, names: Sequence[str]) -> Chosen:
    """Return the choice without the layers of these names."""
    left_out = frozenset(names)
    return lambda *known: chosen(*known) and left_out.isdisjoint(known)


def _best(judge: _Judge, chosen: Chosen, min_snr_db: float) -> tuple[Candidate, list[Candidate]]:
    """Return the best candidate, and the others."""
    plain = _Way("8-bit weights, float arithmetic", judge.model, chosen)
    plain = replace(plain, rounded=judge.rounded(judge.model, chosen))
    weights = judge.attempt(plain)
    target = min(min_snr_db, weights.snr_db - WEIGHTS_MARGIN_DB)
    candidates = [judge.timed(each) for each in (weights, *_others(judge, plain, target))]
    best = choose(candidates, target, target - INDULGENCE_DB)
    return best, [each for each in candidates if each is not best]


def choose(candidates: Sequence[Candidate], target: float, least: float) -> Candidate:
    """Return the fastest candidate that agrees well enough; of equally fast ones, what agrees best.

    Where none that reaches `target` is faster than the original, `least` is enough.
    """
    good = [each for each in candidates if each.snr_db >= target]
    if min(each.ratio for each in good) > WORTHWHILE:
        good = [each for each in candidates if each.snr_db >= least]
    quickest = min(each.ratio for each in good)
    close = [each for each in good if each.ratio <= quickest * NOISE_OF_TIMING]
    return max(close, key=lambda each: each.snr_db)


def _others(judge: _Judge, plain: _Way, target: float) -> Iterator[Candidate]:
    """Yield the ways to multiply integers, where need be with layers back on weights alone."""
    blocked = replace(plain, story="8-bit weights, blocked kernels", operators="onnxruntime")
    with judge.refusals(blocked.story):
        yield judge.attempt(blocked)
    each_run, calibrated = _integers(judge, plain, target)
    ways = [way for way in (each_run, calibrated) if way is not None]
    if calibrated is not None:
        ways += _mixed(calibrated)
    for way in ways:
        with judge.refusals(way.story):
            yield from _enough(judge, way, target)


def _integers(judge: _Judge, plain: _Way, target: float) -> tuple[_Way | None, _Way | None]:
    """Return what agrees best of the ways with ranges of each run, and of those from calibration.

    Smoothing is tried where either does not agree well enough, and then correcting the biases of
    layers with ranges from calibration.
    """
    each_run: list[_Way] = []
    calibrated: list[_Way] = []
    for start in _starts(judge, plain):
        for tried, make in ((each_run, _each_run), (calibrated, _calibrated)):
            if not tried or max(way.snr_db for way in tried) < target:
                with judge.refusals(f"{start.story}ranges"):
                    tried += [replace(way, whole=judge.attempt(way)) for way in make(start)]
        both = (each_run, calibrated)
        if all(max((way.snr_db for way in each), default=target) >= target for each in both):
            break
    best = max(calibrated, key=lambda way: way.snr_db, default=None)
    if best is not None and best.snr_db < target:
        with judge.refusals(f"{best.story}, biases corrected"):
            mended = replace(best, story=f"{best.story}, biases corrected", corrected=True)
            calibrated.append(replace(mended, whole=judge.attempt(mended)))
    first, second = (max(each, key=lambda way: way.snr_db, default=None) for each in (each_run, calibrated))
    return first, second


def _starts(judge: _Judge, plain: _Way) -> Iterator[_Way]:
    """Yield the float model as it is, and smoothed."""
    yield replace(plain, story=STORY)
    with judge.refusals(f"{STORY}smoothed"):
        model = judge.model.copy()
        changes = smooth(model, plain.chosen)
        if any(change.action for change in changes):
            NameFixPass()(model.ir)
            model.changes = (*model.changes, *changes)
            rounded = judge.rounded(model, plain.chosen)
            yield replace(plain, story=f"{STORY}smoothed, ", model=model, rounded=rounded)


def _each_run(start: _Way) -> Iterator[_Way]:
    """Yield the way with ranges of each run."""
    if dynamic.find(start.model.graph, start.chosen).names:
        yield replace(start, story=f"{start.story}each run's range", each_run=start.chosen)


def _calibrated(start: _Way) -> Iterator[_Way]:
    """Yield the ways with ranges from calibration."""
    readers = regions.find(start.model.graph, start.chosen).readers
    observed = static.observe_ranges(start.model, readers, Histogram) if readers else {}
    for calibration in RANGES if readers else ():
        yield replace(
            start,
            story=f"{start.story}range {calibration}",
            calibrated=start.chosen,
            activations=static.Activations(calibration),
            observed=observed,
        )


def _mixed(calibrated: _Way) -> Iterator[_Way]:
    """Yield the ways in which some layers' ranges come from calibration and others from each run."""
    assert calibrated.calibrated is not None
    story = f"{calibrated.story}, each run's for other layers"
    rest = replace(calibrated, each_run=calibrated.chosen, whole=None, story=story)
    if len(rest.layers()) > len(calibrated.layers()):
        yield rest
    kernels = calibrated.kernels()
    linear = [layer.name for layer in kernels if layer.node.op_type != "Conv"]
    if 0 < len(linear) < len(kernels):
        story = f"{calibrated.story} for convolutions, each run's for other layers"
        yield replace(rest, calibrated=_without(calibrated.calibrated, linear), story=story)


def _enough(judge: _Judge, way: _Way, target: float) -> Iterator[Candidate]:
    """Yield a way, with as many of its noisiest layers back on 8-bit weights as `target` takes."""
    whole = way.whole or judge.attempt(way)
    if whole.snr_db >= target - INDULGENCE_DB:
        yield whole
    if whole.snr_db >= target:
        return
    ranked = judge.ranked(way)
    kinds: tuple[Operators, ...] = ("expanded", "onnxruntime")
    backs = [replace(way, corrected=False, operators=operators) for operators in kinds]
    found = [_fewest(judge, back, ranked, target) for back in backs]
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


class _Judge:
    """Measures models on calibration batches that did not calibrate them.

    Attributes:
        model: the original, folded, with the data to calibrate on.
        failures: ways that cannot be taken, and why.
    """

    def __init__(self, model: Model) -> None:
        assert model.calibration is not None
        self.model = model.copy()
        self.model.calibration, judging = _split(model.calibration)
        self.failures: list[str] = []
        inputs = model.graph.inputs
        self._batches = [feeds for feeds, _ in itertools.islice(judging.batches(inputs), MOST_BATCHES)]
        self._timed = single(self._batches[0], inputs), self._batches[0]
        self._original = partial(session(self.model.ir, threads=1).run, None)

    @contextmanager
    def refusals(self, story: str) -> Iterator[str]:
        """Note why a way cannot be taken; another one will be."""
        try:
            yield story
        except (DataError, ModelError, PassError) as error:
            self.failures.append(f"{story}: {error}")

    def rounded(self, model: Model, chosen: Chosen) -> dict[int, dict[str, Quantized]]:
        """Return integers of weights that make up for each other's errors."""
        found: dict[int, dict[str, Quantized]] = {}
        with self.refusals("rounding by GPTQ"):
            for bits in sorted({8, weight_bits("auto")}):
                found[bits] = static.solve_all(model, chosen, bits)
        return found

    def attempt(self, way: _Way, floats: Sequence[str] = ()) -> Candidate:
        """Measure how well a way agrees with the original; its layers `floats` stay in float."""
        story = way.story
        if floats:
            kernels = " in blocked kernels" if way.operators == "onnxruntime" else ""
            story += f", but {len(floats)} of {len(way.layers())} layers{kernels}"
        model = way.apply(floats)
        snr_db = agreement(model.run, self._original, self._batches).snr_db
        model.release()
        return Candidate(story, model, snr_db)

    def timed(self, candidate: Candidate) -> Candidate:
        """Add the time of a run in turn with the original's."""
        run = partial(session(candidate.model.ir, threads=1).run, None)
        ratios = [processor_ratio(run, self._original, feeds, TIMED_SECONDS) for feeds in self._timed]
        return replace(candidate, ratio=max(ratios))

    def ranked(self, way: _Way) -> list[str]:
        """Return the names of the layers that multiply integers, the noisiest first."""
        noise = local_noise(way.model, way.layers(), self._batches)
        return sorted(noise, key=lambda name: -noise[name])


def _split(source: Data) -> tuple[Data, Data]:
    """Return data to calibrate with and data to judge with; with too few batches both are all of them."""
    if sum(1 for _ in itertools.islice(source.raw(), JUDGING)) < JUDGING:
        return source, source

    def part(judges: bool) -> Iterator[Any]:
        batches = enumerate(source.raw())
        return (batch for number, batch in batches if (number % JUDGING == JUDGING - 1) == judges)

    return Data(partial(part, False), source.kind), Data(partial(part, True), source.kind)
