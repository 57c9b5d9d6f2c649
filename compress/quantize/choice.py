"""Eight bits without settings: ways to multiply integers are tried, measured, and the best is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from compress.changes import Change, Reason
from compress.errors import DataError
from compress.graph.edit import name_all
from compress.graph.fold import fold
from compress.model import Model
from compress.numerics.affine import Quantized
from compress.numerics.formats import FLOATS
from compress.quantize import regions
from compress.quantize.feedback import solve_changed, solve_widths
from compress.quantize.floats import store_float_weights
from compress.quantize.judge import Aim, Candidate, Judge, choose
from compress.quantize.placement import Table
from compress.quantize.smoothing import smooth
from compress.quantize.ways import Way, calibrated_ways, mixed_ways, ways_of_each_run
from compress.quantize.weight_only import store_int8_weights

WEIGHTS_MARGIN_DB = 2.0
"""Decibels that integer arithmetic may lose against 8-bit weights alone, if these miss the target."""
ATTEMPTS = 4
"""Models that are built to find which layers return to 8-bit weights and float arithmetic."""
CAUTION = 0.9
"""Share of the noise that a choice of layers may add, since the next measurement differs from the last."""
CLOSE_DB = 1.0
"""Decibels above the target at which a choice is not pushed further."""
WORTH_A_TRY = 0.03
"""Share of the original's time that a choice of layers must promise to gain."""
CORRECTED_DB = 6.0
"""Decibels that correcting biases may gain: it takes as long as all other attempts together."""
LEARNT_DB = 15.0
"""Decibels below the target from which rounding learnt in blocks, with some layers in float, may reach it."""
INTEGERS = "integers, "
"""How the names of ways that multiply integers begin."""


def int8(model: Model, chosen: Callable[..., bool], aim: Aim, bits: int) -> list[Change]:
    """Quantize a model to 8 bits, in place, in the fastest way that agrees well enough with the original.

    Args:
        model: a float model; without calibration data its weights alone are stored in 8 bits.
        chosen: called with the names of a layer's node and weight.
        aim: what is to be kept of the original.
        bits: bits of the weights beside activations in integers, 7 or 8.

    Returns:
        What was done to each layer, and what was chosen for which reasons.

    Raises:
        DataError: a metric is named that calibration data do not tell.
        PassError: a weight is not finite; the message names the layer.
    """
    given = model.ir.clone()
    fold(model.ir)
    if model.calibration is None:
        return _unjudged(model, chosen, aim)
    judge = Judge(model, given, aim)
    plain = Way(
        name="8-bit weights, float arithmetic",
        model=judge.model,
        chosen=chosen,
        bits=bits,
    )
    plain = replace(plain, rounded=_rounded(judge, plain))
    weights = judge.attempt(plain)
    if weights.snr_db == -math.inf:
        return _incomparable(model, weights, aim)
    smoothed = _smoothed(judge, plain) if weights.snr_db < aim.enough_db else None
    if smoothed is not None:
        even = replace(smoothed, name=f"{plain.name}, smoothed")
        weights = max(weights, judge.attempt(even), key=lambda each: each.snr_db)
    target = min(aim.enough_db, max(weights.snr_db - WEIGHTS_MARGIN_DB, aim.least_db))
    others = _others(judge, weights.way, plain, smoothed, target)
    candidates = judge.timed([weights, *others], target)
    return _kept(model, judge, candidates, target)


def _kept(model: Model, judge: Judge, candidates: Sequence[Candidate], target: float) -> list[Change]:
    """Let a model become the best candidate that keeps what is promised, or one with 16-bit weights."""
    left = list(candidates)
    while best := choose(left, target, judge.aim.least_db):
        left.remove(best)
        kept, found = judge.verdict(best.model)
        if kept:
            model.ir = best.model.ir
            rest = [*(str(each) for each in candidates if each is not best), *judge.failures]
            changes = explained(best.changes, judge.tables.get(best.way.name), best.integers)
            return _account(changes, f"{_chosen(best, found)}. Not chosen: {'; '.join(rest)}")
        judge.failures.append(f"{best}, but {found}")
    closest = max(candidates, key=lambda each: each.snr_db)
    return _halves(model, judge, closest)


def _chosen(what: object, found: str) -> str:
    return f"chosen: {what}; {found}" if found else f"chosen: {what}"


def _account(changes: Sequence[Change], choice: str, fell_short: str = "") -> list[Change]:
    """Return the changes of the layers and, if anything was done, what was chosen."""
    done = any(change.action for change in changes)
    return [*changes, *([Change("model", choice, fell_short=fell_short)] if done else [])]


def _refused(changes: Sequence[Change], why: str) -> list[Change]:
    """Return the account of changes that are not made after all."""
    refused = Reason.LOSS.because(why)
    return [Change(each.layer, skipped=refused) if each.action else each for each in changes]


def _unjudged(model: Model, chosen: Callable[..., bool], aim: Aim) -> list[Change]:
    """Store the weights in 8 bits, in place, without data to judge by.

    Raises:
        DataError: a minimum is stated, which nothing can tell.
    """
    if aim.is_stated or aim.max_drop is not None:
        raise DataError(f"nothing tells whether {aim} are kept without calibration data; give some")
    stored = store_int8_weights(model, chosen, operators="expanded")
    return _account(stored, "chosen without calibration data: 8-bit weights, float arithmetic")


def _incomparable(model: Model, weights: Candidate, aim: Aim) -> list[Change]:
    """Let a model keep 8-bit weights where its outputs cannot be compared, unless a minimum is stated."""
    problem = "outputs cannot be compared with the original's, so nothing tells how close they are"
    if aim.is_stated or aim.max_drop is not None:
        return _refused(weights.changes, problem)
    model.ir = weights.model.ir
    return _account(weights.changes, f"chosen: {weights}", problem)


def _halves(model: Model, judge: Judge, closest: Candidate) -> list[Change]:
    """Store the weights in 16 bits, in place, where 8 bits lose too much, if these keep what is promised."""
    problem = f"8 bits do not keep {judge.aim}; the closest, {closest}"
    halves = judge.model.copy()
    changes = store_float_weights(halves, closest.way.chosen, FLOATS["float16"])
    close = judge.closeness(halves)
    kept, found = judge.verdict(halves)
    if close < judge.aim.least_db or not kept:
        return _refused(changes, f"{problem}; 16-bit weights: {close:.1f} dB")
    model.ir = halves.ir
    name_all(model.ir)
    story = _chosen(f"16-bit weights: {close:.1f} dB", found)
    return _account(changes, story, f"{problem}: 16-bit weights instead")


def _rounded(judge: Judge, way: Way) -> dict[int, dict[str, Quantized]]:
    """Return the integers of weights by GPTQ, by bits and weight name; empty where GPTQ fails."""
    with judge.refusals("rounding by GPTQ"):
        return solve_widths(way.model, way.chosen, sorted({8, way.bits}))
    return {}


def _others(
    judge: Judge, weights: Way, plain: Way, smoothed: Way | None, target: float
) -> Iterator[Candidate]:
    """Yield `weights` in other kernels, and the ways to multiply integers.

    Layers go back to 8-bit weights where `target` takes that.
    """
    name = f"8-bit weights, blocked kernels{', smoothed' if weights.prepared else ''}"
    blocked = replace(weights, name=name, operators="onnxruntime")
    with judge.refusals(blocked.name):
        yield judge.attempt(blocked)
    each_run, calibrated = _integers(judge, plain, smoothed, target)
    for whole in filter(None, (each_run, calibrated)):
        with judge.refusals(whole.name):
            found = [*_enough(judge, whole, target)]
            if not found and whole is calibrated and whole.snr_db >= target - LEARNT_DB and judge.has_time:
                found += _enough(judge, judge.attempt(whole.way.learnt(judge.seconds_left)), target)
            yield from found
    for way in mixed_ways(calibrated.way) if calibrated is not None else ():
        with judge.refusals(way.name):
            yield from _enough(judge, judge.attempt(way), target)


def _integers(
    judge: Judge, plain: Way, smoothed: Way | None, target: float
) -> tuple[Candidate | None, Candidate | None]:
    """Return what agrees best of the ways with ranges of each run, and of those from calibration.

    Smoothing is tried where either does not agree well enough, and then correcting the biases of
    layers with ranges from calibration.
    """
    each_run: list[Candidate] = []
    calibrated: list[Candidate] = []
    for start in _starts(judge, plain, smoothed):
        for tried, ways in ((each_run, ways_of_each_run), (calibrated, calibrated_ways)):
            with judge.refusals(f"{start.name}ranges"):
                for way in ways(start) if judge.has_time else ():
                    if _highest(tried) < target and (judge.has_time or not tried):
                        tried.append(judge.attempt(way))
        if all(_highest(tried) >= target for tried in (each_run, calibrated) if tried) or not judge.has_time:
            break
    if target - CORRECTED_DB <= _highest(calibrated) < target and judge.has_time:
        best = max(calibrated, key=lambda each: each.snr_db).way
        mended = replace(best, name=f"{best.name}, biases corrected", corrected=True)
        with judge.refusals(mended.name):
            calibrated.append(judge.attempt(mended))
    first, second = (
        max(tried, key=lambda each: each.snr_db, default=None) for tried in (each_run, calibrated)
    )
    return first, second


def _highest(tried: Sequence[Candidate]) -> float:
    """Return the best agreement with the original; -infinite before anything was tried."""
    return max((each.snr_db for each in tried), default=-math.inf)


def _starts(judge: Judge, plain: Way, smoothed: Way | None) -> Iterator[Way]:
    """Yield the float model as it is, and smoothed, which is known already or found when it is asked for.

    It is not looked for where most layers are convolutions: their channels hold no outliers to speak of.
    """
    yield replace(plain, name=INTEGERS)
    kernels = regions.find(plain.model.graph, plain.chosen).kernels
    convolutions = sum(layer.node.op_type == "Conv" for layer in kernels)
    if smoothed is None and 2 * convolutions <= len(kernels):
        smoothed = _smoothed(judge, plain)
    if smoothed is not None:
        yield smoothed


def _smoothed(judge: Judge, plain: Way) -> Way | None:
    """Return a way on the smoothed model; None where nothing can be smoothed."""
    name = f"{INTEGERS}smoothed"
    with judge.refusals(name):
        model = judge.model.copy()
        prepared = smooth(model, plain.chosen)
        done = tuple(change for change in prepared if change.action)
        if done:
            rounded = solve_changed(model, plain.chosen, plain.model, plain.rounded)
            return replace(plain, name=f"{name}, ", model=model, prepared=done, rounded=rounded)
    return None


def _enough(judge: Judge, whole: Candidate, target: float) -> Iterator[Candidate]:
    """Yield a way as it is, and with those layers back on 8-bit weights that make it fastest at `target`."""
    if whole.snr_db >= judge.aim.least_db:
        yield whole
    several = len(whole.way.layers()) > 1 and judge.has_time
    best = _fastest(judge, whole, target) if several else None
    if best is not None:
        yield best
    elif whole.snr_db < judge.aim.least_db:
        judge.failures.append(str(whole))


def _fastest(judge: Judge, whole: Candidate, target: float) -> Candidate | None:
    """Return a way with the layers back in float that make it fastest at `target`; None if none gains time.

    What a table of layers predicts is corrected by what was measured: of all layers, then of each choice.
    Where none comes to the target, the one with the most integers that agrees well enough to be taken counts.
    """
    enough = whole.snr_db >= target
    table = judge.table(whole, noisy=not enough)
    back, allowed, best = replace(whole.way, corrected=False, operators="expanded"), math.inf, None
    near: Candidate | None = None
    known = {frozenset(table.noise)}
    tried, integers = whole, frozenset(table.noise)
    for _ in range(ATTEMPTS):
        if not enough:
            allowed = table.added(integers) * 10 ** ((tried.snr_db - target) / 10) * CAUTION
        integers = table.fastest(allowed)
        if integers in known or table.time(()) - table.time(integers) < WORTH_A_TRY or not judge.has_time:
            break
        known.add(integers)
        tried = judge.attempt(back, [name for name in table.noise if name not in integers])
        if tried.snr_db >= target:
            best = tried
        elif near is None and tried.snr_db >= judge.aim.least_db:
            near = tried
        if enough or target <= tried.snr_db < target + CLOSE_DB:
            break
    return best or near


def explained(changes: Sequence[Change], table: Table | None, integers: frozenset[str]) -> list[Change]:
    """Return changes that say what integers mean for each layer of a table, these first and in its order."""
    effects = table.effects(integers) if table is not None else {}
    places = {name: place for place, name in enumerate(effects)}
    # Of several layers in float with one weight, only the first has a record so far.
    missing = effects.keys() - {change.layer for change in changes}
    told = [*changes, *(Change(name, skipped=Reason.SHARED) for name in missing)]
    told.sort(key=lambda change: places.get(change.layer, len(places)))
    return [replace(change, effect=effects.get(change.layer, change.effect)) for change in told]
