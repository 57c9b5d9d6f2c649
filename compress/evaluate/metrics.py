"""Metrics over the outputs of ONNX Runtime.

What is measured is a default session on the exported file: that is what users run, and some faults
(saturation above all) show nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from compress.data import Feeds
from compress.diagnose.agreement import Array, Mean, Run, cosine
from compress.errors import DataError, InputError, blame
from compress.progress import track


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
"""The metrics by name; each compares the first output with the labels of a batch."""


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
        DataError: the metric needs labels and a batch has none, or they do not fit the outputs.
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
    """Return the numbers that a user's metric function gives for `run`; the first is the metric.

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
