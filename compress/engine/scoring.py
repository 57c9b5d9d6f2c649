"""The score of one model: its metric, how close it is to the original, its sizes, times and estimates."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import estimator, graph, source
from compress.data import Data, shapes
from compress.diagnose import metrics
from compress.diagnose.agreement import Run, agreement
from compress.diagnose.outputs import read_outputs
from compress.diagnose.timing import latency
from compress.errors import DoesNotRunError, InputError
from compress.estimator import zeros as counting
from compress.estimator.files import profile_id
from compress.estimator.scoring import open_graph
from compress.graph import batch, files
from compress.graph.session import session
from compress.model import Model
from compress.passes.base import get
from compress.recipe.values import Recipe
from compress.results import METRICS, Agreement, HardwareScore, Latency, Metric, VariantResult, WeightShare

ZERO_BATCHES = 4
"""Batches on which zeros of activations are counted, for hardware that makes use of them."""


@dataclass(frozen=True)
class Subject:
    """What is scored, and on what."""

    recipe: Recipe
    trust: bool
    model: Model
    """As it was stored, with the data of the recipe."""
    file: Path
    original: Path
    """The original's ONNX file."""
    packed: Path | None
    original_latency: Latency | None
    """What the original's own score says; None for the original itself."""

    @property
    def compared(self) -> Data | None:
        """The data on which outputs are compared: the evaluation data, else the calibration data."""
        return self.model.evaluation or self.model.calibration


def score(subject: Subject) -> VariantResult:
    """Return the score of a model, without its name and passes and without comparisons to other variants.

    Raises:
        DataError: the recipe's data do not fit the model.
        InputError: the metric cannot be measured.
        PassError: outputs are not finite where the original's are.
    """
    original = _opened(subject, subject.original)
    run = original if subject.file == subject.original else _opened(subject, subject.file)
    close, timed, shapes = _compare(subject, run, original)
    estimated, refused = _estimates(subject, shapes, timed)
    return VariantResult(
        name="",
        passes=[],
        status="done",
        file_bytes=sum(file.stat().st_size for file in subject.file.parent.glob(f"{subject.file.name}*")),
        packed_bytes=subject.packed.stat().st_size if subject.packed else 0,
        weight_bytes=subject.model.weight_bytes,
        weights=_weights(subject),
        metric=_metric(subject, run, original),
        agreement=close,
        latency_seconds=timed,
        hardware=estimated,
        refused=refused,
        shapes=shapes,
        changes=list(subject.model.changes),
        making=list(subject.model.making),
    )


def _weights(subject: Subject) -> WeightShare | None:
    """Return how much of the original's weights was compressed; None if no pass compresses."""
    changes = [each for each in subject.model.changes if each.by and get(each.by).compresses]
    if not changes:
        return None
    original = Model(files.read(subject.original))
    found = graph.coverage(original.ir, subject.model.ir, changes, recorded=original.prepared().ir)
    return WeightShare(compressed=found.compressed, left=found.reason)


def _opened(subject: Subject, file: Path) -> Run:
    ready = session(file, threads=subject.recipe.threads, providers=subject.recipe.providers)
    return lambda feeds: ready.run(None, feeds)


def _compare(
    subject: Subject, run: Run, original: Run
) -> tuple[Agreement | None, Latency | None, dict[str, Any]]:
    """Return agreement and latency on the recipe's data, and the shapes of what was timed."""
    recipe, data, inputs = subject.recipe, subject.compared, subject.model.graph.inputs
    if data is None:
        return None, None, dict(recipe.shapes)
    close = agreement(run, original, data.feeds(inputs), read_outputs(subject.model.graph))
    first = data.first(inputs)
    sample = batch.find(original, inputs, [first], data.batch_axis).sample(first)
    timed = latency(run, original, sample, recipe.latency) if recipe.latency else None
    if timed is not None and subject.original_latency is not None:
        timed = timed.beside(subject.original_latency)
    return close, timed, shapes(sample) | recipe.shapes


def _metric(subject: Subject, run: Run, original: Run) -> Metric | None:
    recipe, chosen = subject.recipe, subject.recipe.metric
    if chosen is None:
        return None
    if chosen.name not in METRICS:
        function = source.call(chosen.name, home=recipe.home, trust=subject.trust)
        numbers = metrics.measure_with(function, chosen.name.rpartition(":")[2], run)
        (name, value), *others = numbers.items()
        return Metric(name=name, value=value, delta=0.0, better=chosen.better, others=dict(others))
    if subject.model.evaluation is None:
        raise InputError(f"{recipe.path}: metric {chosen.name} needs evaluation data")
    batches = subject.model.evaluation.batches(subject.model.graph.inputs)
    value = metrics.measure(chosen.name, run, original, batches)
    return Metric(name=chosen.name, value=value, delta=0.0, better=chosen.better)


def _estimates(
    subject: Subject, shapes: dict[str, Any], timed: Latency | None
) -> tuple[dict[str, HardwareScore], dict[str, str]]:
    """Estimate on every profile, or say why the model does not run there.

    Zeros are counted on the data if a profile makes use of them.
    """
    if not subject.recipe.hardware:
        return {}, {}
    profiles = [estimator.load(each) for each in subject.recipe.hardware]
    zeros: dict[str, float] = {}
    if subject.compared and any(profile.reads_activation_zeros for profile in profiles):
        feeds = subject.compared.feeds(subject.model.graph.inputs)
        zeros = counting.counted(subject.model, itertools.islice(feeds, ZERO_BATCHES))
    rounds = estimator.loops.on_data(open_graph(subject.model), subject.compared, shapes)
    scored = subject.packed or subject.file
    found: dict[str, HardwareScore] = {}
    refused: dict[str, str] = {}
    for each, profile in zip(subject.recipe.hardware, profiles, strict=True):
        try:
            one = estimator.estimate(
                scored, profile, shapes=shapes, zeros=zeros, rounds=rounds, latency=timed
            )
        except DoesNotRunError as error:
            refused[profile_id(each)] = str(error)
        else:
            found[profile_id(each)] = one.score()
    return found, refused
