"""Metrics over the outputs of ONNX Runtime.

What is measured is a default session on the exported file: that is what users run, and some faults
(saturation above all) show nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress import units
from compress.data import Feeds
from compress.diagnose.agreement import Array, Mean, Run, cosine
from compress.errors import DataError, InputError, blame
from compress.progress import track
from compress.results import METRICS


def correct(output: Array, label: Array) -> Array:
    """Tell for each row whether the class with the highest score [..., classes] is the label [...].

    An output of labels, integers or strings in the labels' shape, is compared as it is.
    """
    is_labels = output.dtype.kind != "f" and output.shape == label.shape
    found = output if is_labels else output.argmax(-1)
    if found.shape != label.shape:
        raise ValueError("a shape that would only broadcast")
    return np.asarray(found == label)


def correct_in_five(output: Array, label: Array) -> Array:
    """Tell for each row whether the label [...] is among the five highest scores [..., classes]."""
    if output.dtype.kind != "f" or output.shape[:-1] != label.shape:
        raise ValueError("no scores, or a shape that would only broadcast")
    places = min(5, output.shape[-1])
    best = np.argpartition(output, -places, axis=-1)[..., -places:]
    return np.asarray((best == label[..., None]).any(-1))


def squared_error(output: Array, label: Array) -> Array:
    """Return the squared differences, element by element."""
    return np.asarray(np.square(output.astype(np.float64) - label))


def absolute_error(output: Array, label: Array) -> Array:
    """Return the absolute differences, element by element."""
    return np.asarray(np.abs(output.astype(np.float64) - label))


def surprise(output: Array, label: Array) -> Array:
    """Return the negative log-likelihood in nats of each label [batch, tokens] under logits [..., classes].

    Labels below zero are left out.
    """
    logits = np.asarray(output, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits, np.maximum(label, 0)[..., None], -1)[..., 0]
    return np.asarray((np.log(np.exp(logits).sum(-1)) - chosen)[label >= 0])


MEANS: Mapping[str, Callable[[], Mean]] = {
    "accuracy": lambda: Mean(correct),
    "top5": lambda: Mean(correct_in_five),
    "mse": lambda: Mean(squared_error),
    "mae": lambda: Mean(absolute_error),
    "cosine": lambda: Mean(cosine),
    "perplexity": lambda: Mean(surprise, math.exp),
}
"""The metrics by name, means all; each compares the first output with the labels of a batch."""
NORMAL_95 = 1.96
"""Standard errors on either side of a mean that hold 95 % of a normal distribution."""
_BY_ELEMENT = ("mse", "mae", "cosine")
"""Those whose labels have the outputs' shape."""


def measure(name: str, run: Run, original: Run, batches: Iterable[tuple[Feeds, Any]]) -> float:
    """Return a named metric of `run`.

    Where batches have no labels, cosine, mse and mae compare with the original's first output, and
    perplexity predicts the next token of the first input that holds integers.

    Args:
        name: a key of `MEANS`.
        run: the variant.
        original: the original.
        batches: (feeds, labels) of the evaluation data.

    Raises:
        DataError: the metric needs labels and a batch has none, or they do not fit the outputs.
        InputError: the metric is not a finite number; the message names the batch.
    """
    mean = MEANS[name]()
    for number, (feeds, given) in enumerate(track(batches, f"evaluating {name}")):
        where = f"evaluation data, batch {number}: {name}"
        _update(mean, name, where, *_compared(name, where, run(feeds), given, feeds, original))
    if not mean.count:
        raise DataError(f"evaluation data: {name}: no batch has a label that counts")
    return _value(name, lambda: mean.value)


@dataclass(frozen=True, slots=True)
class Loss:
    """How much worse a metric is than the original's, on the same samples.

    Attributes:
        name: the metric.
        original: the original's value.
        points: what is lost, in points of the metric; below zero for a gain.
        low: lower end of its 95 % interval, from the differences sample by sample.
        high: the upper end.
        samples: how many were compared.
    """

    name: str
    original: float
    points: float
    low: float
    high: float
    samples: int

    def __str__(self) -> str:
        interval = f"95 %: {self.low:.4g} to {self.high:.4g}, {units.count(self.samples, 'sample')}"
        return f"{self.name} loses {self.points:.4g} of {self.original:.4g} ({interval})"


def loss(name: str, run: Run, original: Run, batches: Iterable[tuple[Feeds, Any]]) -> Loss:
    """Return how much a named metric of `run` is worse than the original's on calibration data.

    Args and errors are those of `measure`.
    """
    ours, theirs = MEANS[name](), MEANS[name]()
    apart: list[Array] = []
    for number, (feeds, given) in enumerate(batches):
        where = f"calibration data, batch {number}: {name}"
        values = [
            _update(mean, name, where, *_compared(name, where, found, given, feeds, original))
            for mean, found in ((ours, run(feeds)), (theirs, original(feeds)))
        ]
        mine, other = (each.reshape(len(each), -1).astype(np.float64).mean(1) for each in values)
        apart.append(mine - other)
    if not ours.count:
        raise DataError(f"calibration data: {name}: no batch has a label that counts")
    differences = np.concatenate(apart)
    start, shift = theirs.total / theirs.count, ours.total / ours.count - theirs.total / theirs.count
    error = _standard_error(differences, is_share=values[0].dtype == bool)
    sign = 1 if METRICS[name] == "lower" else -1

    def points(change: float) -> float:
        return _value(name, lambda: sign * (ours.then(start + change) - ours.then(start)) + 0.0)  # no -0.0

    low, high = sorted(points(shift + side * NORMAL_95 * error) for side in (-1, 1))
    return Loss(name, _value(name, lambda: theirs.value), points(shift), low, high, len(differences))


def _standard_error(differences: Array, is_share: bool) -> float:
    """Return the standard error of the mean of paired differences.

    Of those that are -1, 0 or 1, half a sample is added to each outcome of both models (Agresti and Min,
    "Simple improved confidence intervals for comparing matched proportions", 2005): a few samples without
    a difference prove little.
    """
    if is_share:
        half = math.sqrt(0.5)
        differences = np.concatenate([differences, [-half, half]])
    count = len(differences)
    return float(differences.std(ddof=1) / math.sqrt(count)) if count > 1 else math.inf


def _update(mean: Mean, name: str, where: str, output: Array, label: Array) -> Array:
    """Take a batch into a mean; return the values of its elements."""
    try:
        if name in _BY_ELEMENT and output.shape != label.shape:
            raise ValueError("a shape that would only broadcast")
        values = mean.update(output, label)
    except (TypeError, ValueError, IndexError) as error:
        shapes = f"labels {label.shape} do not fit outputs {output.shape}"
        raise DataError(f"{where}: {shapes}") from error
    if not math.isfinite(mean.total):
        whose = "labels" if output.dtype.kind != "f" or np.isfinite(output).all() else "outputs"
        raise InputError(f"{where} is {mean.total}: look for NaN and large numbers in its {whose}")
    return values


def _value(name: str, value: Callable[[], float]) -> float:
    try:
        return value()
    except OverflowError as error:
        raise InputError(
            f"{name} is past the range of floating point: are these the right labels?"
        ) from error


def _compared(
    name: str, where: str, outputs: Sequence[Any], label: Any, feeds: Feeds, original: Run
) -> tuple[Array, Array]:
    """Return the first output and what it is compared with."""
    output = outputs[0]
    if not isinstance(output, np.ndarray):
        raise InputError(
            f"{where}: the first output is no array; write a metric of your own, file.py:function"
        )
    if label is None and name == "perplexity":
        tokens = next((array for array in feeds.values() if array.dtype.kind in "iu"), None)
        if tokens is not None:
            output, label = output[:, :-1], tokens[:, 1:]
    elif label is None and name in ("cosine", "mse", "mae"):
        label = original(feeds)[0]
    if label is None:
        raise DataError(f"{where} needs labels; yield (inputs, labels)")
    return output, np.asarray(label)


class _Watched:
    """A model that notes the first of its runs whose outputs are not finite."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.count = 0
        self.broken: int | None = None

    def __call__(self, feeds: Feeds) -> list[Array]:
        outputs = self.run(feeds)
        floats = (each for each in outputs if isinstance(each, np.ndarray) and each.dtype.kind == "f")
        if self.broken is None and not all(np.isfinite(each).all() for each in floats):
            self.broken = self.count
        self.count += 1
        return outputs

    @property
    def found(self) -> str:
        """Where outputs were not finite, in words."""
        if self.broken is None:
            return "all outputs of the model are finite, so the function itself makes it"
        return f"outputs of the model are NaN or infinite in batch {self.broken} that the function ran"


def measure_with(function: Callable[[Run], Any], name: str, run: Run) -> dict[str, float]:
    """Return the numbers that a user's metric function gives for `run`; the first is the metric.

    Raises:
        InputError: it returns neither a number nor a dict of numbers, or one that is not finite.
    """
    watched = _Watched(run)
    with blame(f"metric {name}", InputError):
        result = function(watched)
    numbers = dict(result) if isinstance(result, Mapping) else {name: result}
    if not numbers:
        raise InputError(f"metric {name}: returned {result!r}; give a number or a dict of them")
    return {str(key): _number(name, key, value, watched) for key, value in numbers.items()}


def _number(name: str, key: Any, value: Any, watched: _Watched) -> float:
    """Return a number that a metric function gave."""
    what = f"metric {name}" if key == name else f"metric {name}: {key}"
    try:
        number = float(value)
    except OverflowError as error:
        raise InputError(f"{what}: returned a number past the range of floating point") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: returned {value!r}; give a number or a dict of them") from error
    if not math.isfinite(number):
        raise InputError(f"{what}: returned {number}; {watched.found}")
    return number
