"""How good a variant is: the recipe's metric, agreement with the original, and time of a run.

All three go through ONNX Runtime in a default session, on the file that was exported: that is what
users run, and some faults (saturation above all) show nowhere else.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from compress.errors import DataError, InputError, PassError, blame
from compress.progress import track
from compress.results import Agreement, Latency

if TYPE_CHECKING:
    from compress.data import Feeds

Array: TypeAlias = np.ndarray
Run: TypeAlias = Callable[["Feeds"], list[Array]]
"""Runs a model on one batch: feeds by input name in, outputs in the graph's order out."""
WARM_UP_RUNS = 2
LEAST_ROUNDS, MOST_ROUNDS = 7, 300


class Mean:
    """A mean over all elements of all batches."""

    def __init__(self, of: Callable[[Array, Array], Array], then: Callable[[float], float] = float) -> None:
        self.of = of
        self.then = then
        self.total = 0.0
        self.count = 0

    def update(self, output: Array, label: Array) -> None:
        """Take in one batch."""
        values = self.of(output, label)
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size

    @property
    def value(self) -> float:
        """The mean so far; NaN before the first element."""
        return self.then(self.total / self.count) if self.count else math.nan


def correct(output: Array, label: Array) -> Array:
    """Tell for each row whether the class with the highest score [..., classes] is the label [...]."""
    return np.asarray(output.argmax(-1) == label)


def correct_in_five(output: Array, label: Array) -> Array:
    """Tell for each row whether the label [...] is among the five highest scores [..., classes]."""
    places = min(5, output.shape[-1])
    best = np.argpartition(output, -places, axis=-1)[..., -places:]
    return np.asarray((best == np.asarray(label)[..., None]).any(-1))


def squared_error(output: Array, label: Array) -> Array:
    """Return the squared differences, element by element."""
    return np.asarray(np.square(output.astype(np.float64) - label))


def absolute_error(output: Array, label: Array) -> Array:
    """Return the absolute differences, element by element."""
    return np.asarray(np.abs(output.astype(np.float64) - label))


def cosine(output: Array, label: Array) -> Array:
    """Return the cosine of each row (last axis) and the label's; 1 where both are zero."""
    a, b = np.asarray(output, np.float64), np.asarray(label, np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_zero = (a == 0).all(-1) & (b == 0).all(-1)
    return np.where(both_zero, 1.0, (a * b).sum(-1) / np.where(norms > 0, norms, 1.0))


def surprise(output: Array, label: Array) -> Array:
    """Return the negative log-likelihood in nats of each label [batch, tokens] under logits [..., classes].

    Labels below zero are left out.
    """
    logits = np.asarray(output, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    label = np.asarray(label)
    chosen = np.take_along_axis(logits, np.maximum(label, 0)[..., None], -1)[..., 0]
    return np.asarray((np.log(np.exp(logits).sum(-1)) - chosen)[label >= 0])


METRICS: Mapping[str, Callable[[], Mean]] = {
    "accuracy": lambda: Mean(correct),
    "top5": lambda: Mean(correct_in_five),
    "mse": lambda: Mean(squared_error),
    "mae": lambda: Mean(absolute_error),
    "cosine": lambda: Mean(cosine),
    "perplexity": lambda: Mean(surprise, math.exp),
}
"""The metrics that have a name, over the first output and the labels of a batch."""


def measure(name: str, run: Run, original: Run, batches: Iterable[tuple[Feeds, Any]]) -> float:
    """Return a named metric of `run`.

    Where batches have no labels, cosine, mse and mae compare with the original's first output, and
    perplexity predicts the next token of the first input that holds integers.

    Args:
        name: a key of `METRICS`.
        run: the variant.
        original: the original.
        batches: (feeds, labels) of the evaluation data.

    Raises:
        DataError: the metric needs labels and there are none, or they do not fit the outputs.
    """
    mean = METRICS[name]()
    for number, (feeds, given) in enumerate(track(batches, f"evaluating {name}")):
        output = run(feeds)[0]
        label = given
        if label is None and name == "perplexity":
            tokens = next((array for array in feeds.values() if array.dtype.kind in "iu"), None)
            if tokens is not None:
                output, label = output[:, :-1], tokens[:, 1:]
        elif label is None and name in ("cosine", "mse", "mae"):
            label = original(feeds)[0]
        if label is None:
            raise DataError(f"evaluation data, batch {number}: {name} needs labels; yield (inputs, labels)")
        try:
            mean.update(output, np.asarray(label))
        except (ValueError, IndexError) as error:
            shapes = f"labels {np.shape(label)} do not fit outputs {output.shape}"
            raise DataError(f"evaluation data, batch {number}: {name}: {shapes}") from error
    return mean.value


def measure_with(function: Callable[[Run], Any], name: str, run: Run) -> dict[str, float]:
    """Return what a user's metric function makes of `run`; the first entry counts.

    Raises:
        InputError: it returns neither a number nor a dict of numbers.
    """
    with blame(f"metric {name}", InputError):
        result = function(run)
    numbers = dict(result) if isinstance(result, Mapping) else {name: result}
    wrong = f"metric {name}: returned {result!r}; give a number or a dict of them"
    if not numbers:
        raise InputError(wrong)
    try:
        return {str(key): float(value) for key, value in numbers.items()}
    except (TypeError, ValueError) as error:
        raise InputError(wrong) from error


def agreement(run: Run, original: Run, batches: Iterable[Feeds]) -> Agreement:
    """Compare all float outputs of `run` with the original's.

    Raises:
        PassError: the outputs are not finite where the original's are, or have other shapes.
    """
    signal: dict[int, float] = {}
    noise: dict[int, float] = {}
    cosines: dict[int, Mean] = {}
    for feeds in track(batches, "comparing with the original"):
        for index, (ours, theirs) in enumerate(zip(run(feeds), original(feeds), strict=True)):
            if theirs.dtype.kind != "f":
                continue
            _check_comparable(index, ours, theirs)
            finite = np.isfinite(theirs)
            a = np.where(finite, ours, 0).astype(np.float64)
            b = np.where(finite, theirs, 0).astype(np.float64)
            signal[index] = signal.get(index, 0.0) + float(np.square(b).sum())
            noise[index] = noise.get(index, 0.0) + float(np.square(a - b).sum())
            cosines.setdefault(index, Mean(cosine)).update(np.atleast_1d(a), np.atleast_1d(b))
    if not signal:
        return Agreement(snr_db=math.inf, cosine=1.0)
    ratios = {index: decibels(signal[index], noise[index]) for index in signal}
    worst = min(ratios, key=lambda index: ratios[index])
    return Agreement(snr_db=ratios[worst], cosine=cosines[worst].value)


def _check_comparable(index: int, ours: Array, theirs: Array) -> None:
    if ours.shape != theirs.shape:
        raise PassError(f"output {index} has shape {ours.shape} where the original's has {theirs.shape}")
    if not np.isfinite(ours[np.isfinite(theirs)]).all():
        raise PassError(f"output {index} holds NaN or infinite values where the original's are finite")


def decibels(signal: float, noise: float) -> float:
    """Return ``10 log10(signal / noise)``; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def latency(run: Run, original: Run, feeds: Feeds, runs: int) -> Latency:
    """Time `run` and the original in turn on the same feeds, so that both meet the same machine."""
    times: dict[Run, list[float]] = {run: [], original: []}
    for _ in range(WARM_UP_RUNS):
        run(feeds)
        original(feeds)
    for _ in track(range(runs), "timing", total=runs):
        for each in times:
            start = time.perf_counter()
            each(feeds)
            times[each].append(time.perf_counter() - start)
    median, reference = statistics.median(times[run]), statistics.median(times[original])
    return Latency(median=median, runs=runs, ratio=median / reference)


def processor_ratio(run: Run, original: Run, feeds: Feeds, seconds: float) -> float:
    """Return the least processor time of `run` over that of `original`, the two taking turns.

    Other programs lengthen neither. Both should work on one thread.

    Args:
        run: the variant.
        original: the original.
        feeds: inputs of one run.
        seconds: when to stop; seven rounds are run in any case, the first of them to warm up.
    """
    times: dict[Run, list[float]] = {run: [], original: []}
    end = time.perf_counter() + seconds
    while len(times[run]) < LEAST_ROUNDS or (time.perf_counter() < end and len(times[run]) < MOST_ROUNDS):
        for each, taken in times.items():
            start = time.process_time()
            each(feeds)
            taken.append(time.process_time() - start)
    return min(times[run][1:]) / min(times[original][1:])


def single(feeds: Feeds, batched: Iterable[str]) -> Feeds:
    """Return feeds of one sample: the first row of every input in `batched`, the others whole."""
    first = set(batched)
    return {name: array[:1] if name in first else array for name, array in feeds.items()}


def feeds_only(batches: Iterable[tuple[Feeds, Any]]) -> Iterator[Feeds]:
    """Drop the labels of batches."""
    return (feeds for feeds, _ in batches)
