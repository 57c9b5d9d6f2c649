"""A model under search: what can be decided about it, what is predicted of that, and what is found."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from compress import units
from compress.data import Feeds, shapes
from compress.diagnose.closeness import Closeness
from compress.diagnose.metrics import Loss, loss
from compress.diagnose.sensitivity import Switchboard
from compress.errors import DataError
from compress.estimator import estimate
from compress.estimator.catalogue import as_profile
from compress.graph import batch, stored
from compress.graph.layers import layers
from compress.graph.session import session
from compress.passes.base import get
from compress.passes.pipeline import Pipeline
from compress.progress import step
from compress.prune.channels import free
from compress.prune.coupling import Kind
from compress.quantize import Groundwork
from compress.quantize.judge import split
from compress.quantize.static import Weights
from compress.seek import space
from compress.seek.frontier import UNITS, Point
from compress.seek.journal import Journal
from compress.seek.loss import losses
from compress.seek.problem import Assignment, Cell, Problem, gains
from compress.seek.space import Plan
from compress.seek.tables import Tables

if TYPE_CHECKING:
    from compress.model import Model
    from compress.recipe.wanted import Search

OPSET = 21
"""Operator set that can say weights of 4 bits."""
JUDGING_BATCHES = 8
"""Most batches that variants are measured on."""
RANKING_BATCHES = 2
"""Most batches that single changes are measured on."""
QUICK_SAMPLES = 512
"""Samples on which layers are refitted to measure what single groups of channels lose."""
KINDS: tuple[Kind, ...] = ("channels", "heads")
"""Kinds of groups that lose channels."""


class Study:
    """A model under search: what can be decided, what is predicted of it, and what is found."""

    def __init__(self, model: Model, wanted: Search, metric: str, journal: Journal) -> None:
        if model.calibration is None:
            raise DataError("a search needs calibration data, to calibrate on and to measure what is lost")
        self._given, self._wanted, self._metric, self._journal = model, wanted, metric, journal
        self._quantities = {wanted.minimise, *wanted.limits.stated} - {"ram"}
        self.profile = as_profile(wanted.hardware or "cpu")
        prepared = model.prepared(OPSET)
        stored.read_plainly(prepared.ir)
        stored.compute_in_float32(prepared.ir)
        prepared.calibration, self._judging = split(model.calibration)
        inputs = prepared.graph.inputs
        batches = [each for each, _ in itertools.islice(self._judging.batches(inputs), JUDGING_BATCHES)]
        self._batches: Sequence[Feeds] = batches
        self._run = partial(session(prepared.ir).run, None)
        self._axes = batch.find(self._run, inputs, batches[:1], self._judging.batch_axis)
        self.sizes = shapes(self._axes.sample(batches[0]))
        self._closeness = Closeness(prepared.ir, batches, self._run)
        self._boards: dict[int, Switchboard] = {}
        self._prepared, self._ground = prepared, Groundwork(prepared)
        self._base = self._ground.pruned()
        groups = free(self._ground.channels.groups, KINDS) if "channels" in wanted.choices else {}
        self.space = space.find(
            self._base.ready.graph, lambda *_: True, self.profile, groups, wanted.choices, self._quantities
        )
        coupling = self._ground.channels.coupling if groups else None
        self._tables = Tables(prepared, self.profile, self.space, coupling, self.sizes)

    @cached_property
    def original(self) -> dict[str, float]:
        """Costs of the original as it would be deployed."""
        return self._tables.costs(tuple(0 for _ in self.space.decisions))

    @cached_property
    def problem(self) -> Problem:
        """The decisions with what they lose and cost, tensors living where they do in 8 bits."""
        decisions = self.space.decisions
        narrow = tuple(0 if each.kind == "channels" else min(1, len(each.options) - 1) for each in decisions)
        cells = self._tables.cells(narrow)
        added = losses(decisions, self._measured, partial(self._is_worth, cells))
        return Problem(decisions, added, cells, self.space.links)

    def _is_worth(self, cells: Sequence[Cell], number: int, place: int) -> bool:
        """Tell whether an option saves anything; codes do so together, where any do."""
        alike = self.space.by_kind["codes"] if self.space.decisions[number].kind == "codes" else [number]
        return any(gains(cells, self._quantities, each, place) for each in alike)

    def _measured(self, number: int, option: float) -> float:
        """Return noise over signal at the outputs after one change alone."""
        decision = self.space.decisions[number]
        measure = {"weights": self._noise_of_weights, "codes": self._noise_of_codes}.get(
            decision.kind, self._noise_without
        )
        question = f"{decision.kind} {decision.name!r}: {option:g}"
        return float(self._journal.once(question, lambda: measure(number, option)))

    def _noise_of_weights(self, number: int, bits: float) -> float:
        return self._rounding(int(bits)).noise(weights=self._sharing[number])

    def _noise_of_codes(self, number: int, _: float) -> float:
        return self._coding.noise(values=[name for name, each in self.space.values.items() if each == number])

    def _noise_without(self, number: int, share: float) -> float:
        return self.noise(self._quick.pruned({self.space.decisions[number].name: share}).model)

    @cached_property
    def _quick(self) -> Groundwork:
        """The model with fewer calibration samples, which are enough to tell what losing channels costs."""
        model, every = self._prepared.copy(), self._prepared.calibration
        assert every is not None
        count = math.ceil(QUICK_SAMPLES / self._axes.size(self._batches[0]))
        model.calibration = every.over(lambda: itertools.islice(every.raw(), count))
        return Groundwork(model)

    @cached_property
    def _coding(self) -> Switchboard:
        """The model in which any value can have codes."""
        return Switchboard(self._base.ready, self._base.codes, {}, self._batches[:RANKING_BATCHES])

    @cached_property
    def _sharing(self) -> dict[int, list[str]]:
        """Names of the layers that every decision about weights is about."""
        found: dict[int, dict[str, None]] = {}
        for layer in layers(self._base.ready.graph):
            if (number := self.space.weights.get(layer.weight.name or "")) is not None:
                found.setdefault(number, {})[layer.name] = None
        return {number: list(names) for number, names in found.items()}

    def _rounding(self, bits: int) -> Switchboard:
        """Return the model in which any weight can be rounded to so many bits."""
        if bits in self._boards:
            return self._boards[bits]
        kernels = Weights(bits, rounded=self._base.integers([bits])[bits])
        contents: dict[str, dict[str, np.ndarray]] = {}
        for layer in layers(self._base.ready.graph):
            if layer.weight.name in self.space.weights:
                known = contents.setdefault(layer.name, {})
                known[layer.weight.name or ""] = kernels.of(layer).dequantize().numpy()
        self._boards[bits] = Switchboard(self._base.ready, {}, contents, self._batches[:RANKING_BATCHES])
        return self._boards[bits]

    def noise(self, model: Model) -> float:
        """Return noise over signal at the outputs of a model, on the batches held out."""
        return 10 ** (-self._closeness(model.ir) / 10)

    @cached_property
    def most_lost(self) -> float | None:
        """Points of the metric that may be lost; None without a limit."""
        drop = self._wanted.limits.drop
        return None if drop is None else drop.allowed(self._loss(self._given).original)

    def evaluated(self, chosen: Assignment) -> Point:
        """Make the variant of an assignment from the batches that calibrate, and measure it."""
        plan = self.space.plan(chosen)
        predicted = {"loss": self.problem.added(chosen)}
        predicted |= {name: self.problem.cost(name, chosen) for name in UNITS if name != "ram"}
        found = dict(self._journal.once(json.dumps(plan, sort_keys=True), lambda: self._found(plan, chosen)))
        passes = self._wanted.steps(plan)
        return Point(plan, passes, predicted, found, found.pop("drop", None), partial(self._made, passes))

    def _found(self, plan: Plan, chosen: Assignment) -> dict[str, float]:
        """Make a variant; return noise, costs and, where it is limited, the drop that are found."""
        with step(f"evaluating {_described(plan)}"):
            chosen_of = [plan.get(kind, {}) for kind in ("channels", "weights", "activations")]
            variant = self._ground.take(*chosen_of)[0] if plan else self._base.model
            costs = self._tables.costs(chosen)
            total = estimate(variant, self.profile, shapes=self.sizes).total
            drop = {} if self._wanted.limits.drop is None else {"drop": self._loss(variant).points}
            return {
                "loss": self.noise(variant),
                "energy": total.energy_joules,
                "seconds": total.seconds,
                "dram_bytes": total.dram_bytes,
                "macs": float(total.macs),
                "file": float(variant.weight_bytes),
                **{name: costs[name] for name in ("flash", "ram")},
                **drop,
            }

    def _made(self, passes: Sequence[Mapping[str, Any]]) -> Model:
        """Return what passes make of the whole calibration data, as a recipe does."""
        steps = [get(name).model_validate(settings) for each in passes for name, settings in each.items()]
        return Pipeline(steps)(self._given)

    def _loss(self, variant: Model) -> Loss:
        run = partial(session(variant.ir).run, None)
        labelled = self._judging.batches(self._given.graph.inputs)
        return loss(self._metric, run, self._run, labelled)


def _described(plan: Plan) -> str:
    """Return a plan in a few words, for the progress."""
    counts = [units.count(len(chosen), name.removesuffix("s")) for name, chosen in plan.items()]
    return ", ".join(counts) or "the original"
