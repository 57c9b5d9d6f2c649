"""Ways to quantize a float model to 8 bits: which layers, with which ranges and which weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compress.changes import Change, Effect, Reason
from compress.cpu import weight_bits
from compress.diagnose.sensitivity import Codes
from compress.graph.activations import fuse_activations
from compress.graph.edit import name_all
from compress.graph.layers import layers
from compress.model import Model
from compress.numerics.affine import Quantized
from compress.numerics.ranges import Histogram
from compress.quantize import dynamic, regions, static
from compress.quantize.bias import move_biases
from compress.quantize.plans import Operators
from compress.quantize.weight_only import store_int8_weights

RANGES = (
    static.Activations("minmax"),
    static.Activations("percentile", 99.99),
    static.Activations("mse"),
    static.Activations("percentile", 99.9),
)
"""How ranges are chosen, in the order in which it is tried."""
MIXED = 0.1
"""Least share of linear layers among convolutions that are given ranges of their own kind."""
SPARED = 0.02
"""Share of the float weights' bytes that stays in float where arithmetic does: the smallest, depthwise often,
are those that rounding hurts most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the layers of a folded float model become integers; nothing is changed until it is taken.

    Attributes:
        name: the way in words.
        model: the float model, with data to calibrate on.
        chosen: called with the names of a layer's node and weight.
        bits: bits of the weights beside activations in integers, 7 or 8.
        prepared: what was done to the model before, as smoothing does.
        rounded: integers of weights by bits and name; others are rounded to the nearest.
        operators: which nodes read the weights of layers that do not multiply integers.
        calibrated: how activations become integers whose ranges come from calibration; None for no layer.
        observed: what is known of their activations, by name.
        besides: names of layers whose ranges do not come from calibration all the same.
        each_run: whether each run finds the ranges of the other layers.
        corrected: whether biases are corrected in the end.
    """

    name: str
    model: Model
    chosen: Callable[..., bool]
    bits: int = field(default_factory=lambda: weight_bits("auto"))
    prepared: tuple[Change, ...] = ()
    rounded: Mapping[int, Mapping[str, Quantized]] = field(default_factory=dict)
    operators: Operators = "expanded"
    calibrated: static.Activations | None = None
    observed: Mapping[str, static.Observer] = field(default_factory=dict)
    besides: tuple[str, ...] = ()
    each_run: bool = False
    corrected: bool = False

    def learnt(self, seconds: float = math.inf) -> Way:
        """Return the same way with the rounding of weights learnt block by block, for about so long.

        Raises:
            DataError: an activation is not finite.
        """
        assert self.calibrated is not None
        bits, chosen = self.bits, self._but(self.besides)
        weights = static.Weights(bits, rounded=self.rounded.get(bits, {}))
        weights, _ = static.learn_in_blocks(
            self.model, chosen, self.calibrated, self.observed, weights, seconds
        )
        name = f"{self.name}, rounding learnt in blocks"
        return replace(self, name=name, rounded={**self.rounded, bits: weights.rounded})

    def layers(self) -> list[str]:
        """Return the names of the layers that multiply integers, in the order of the graph."""
        graph, names = self.model.graph, set[str]()
        if self.calibrated is not None:
            names |= {layer.name for layer in regions.find(graph, self._but(self.besides)).kernels}
        if self.each_run:
            names |= set(dynamic.find(graph, self.chosen).names)
        return [name for node in graph if (name := node.name or "") in names]

    def codes(self) -> dict[str, tuple[Codes | None, frozenset[str]]]:
        """Return by name of a value that becomes integers its codes and the layers that it lies between.

        None stands for codes in a range that each run finds.
        """
        graph, found = self.model.graph, dict[str, tuple[Codes | None, frozenset[str]]]()
        if self.calibrated is not None:
            around = regions.find(graph, self._but(self.besides))
            missing = [value for value in around.readers if value.name not in self.observed]
            more = static.observe_ranges(self.model, missing, Histogram) if missing else {}
            grids = static.grids_of(around, self.calibrated, {**self.observed, **more})
            for value, names in regions.sides(around).items():
                grid = grids[around.range_owner(value)]
                found[value.name or ""] = Codes(grid.scale, grid.zero), names
        if self.each_run:
            left = set(self.layers()).difference(*(names for _, names in found.values()))
            for layer in layers(graph):
                read = layer.node.inputs[0]
                if layer.name in left and read is not None:
                    _, names = found.get(read.name or "", (None, frozenset()))
                    found[read.name or ""] = None, names | {layer.name}
        return found

    def numbers(self) -> dict[str, float]:
        """Return how many numbers the values with calibrated codes have in a batch, by name."""
        assert self.model.calibration is not None
        batches = sum(1 for _ in self.model.calibration.raw())
        return {
            name: seen.counts.sum() / batches
            for name, seen in self.observed.items()
            if isinstance(seen, Histogram)
        }

    def weights(self) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
        """Return what weights of layers in integers are rounded to, by names of the layer and the weight."""
        bits, names = self.bits, set(self.layers())
        kernels = static.Weights(bits, rounded=self.rounded.get(bits, {}))
        found: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
        for layer in layers(self.model.graph):
            if layer.name in names:
                known = found.setdefault(layer.name, {})
                known[layer.weight.name or ""] = kernels.of(layer).dequantize().numpy()
        return found

    def take(self, floats: Collection[str] = ()) -> tuple[Model, list[Change]]:
        """Return a quantized copy of the model and what was done; the layers named `floats` stay in float.

        Weights of layers in float are stored in 8 bits, too.
        """
        model = self.model.copy()
        bits = self.bits
        kernels = self.rounded.get(bits, {})
        placed: list[Change] = []
        if self.calibrated is not None:
            chosen = self._but((*self.besides, *floats))
            weights = static.Weights(bits, rounded=kernels)
            placed += static.place(model, chosen, self.calibrated, self.observed, weights)
            fuse_activations(model.ir)  # those that stay in float were taken apart for integers
            RemoveUnusedNodesPass()(model.ir)
        if self.each_run:
            others = dynamic.find(model.graph, self._but(floats))
            placed += dynamic.place(model.graph, others, bits, kernels)
        done = [change for change in placed if change.action]
        changes = _told([*self.prepared, *done, *self._stored(model)], placed)
        name_all(model.ir)
        if self.corrected:
            changes += move_biases(model, self.model, self.chosen)
        return model, changes

    def _stored(self, model: Model) -> list[Change]:
        """Store the weights that are still float in 8 bits, in place, but for the smallest."""
        small = _small(model.graph, self.chosen, self.model.weight_bytes)
        spared, names = Reason.SMALL.because("its rounding is spared"), dict.fromkeys(small.values())
        rounded = self.rounded.get(8)
        stored = store_int8_weights(model, self._but(small), operators=self.operators, rounded=rounded)
        others = (change for change in stored if change.action or change.layer not in names)
        return [*(Change(name, skipped=spared) for name in names), *others]

    def _but(self, names: Collection[str]) -> Callable[..., bool]:
        """Return `chosen` without the layers of these names."""
        excluded = frozenset(names)
        return lambda *known: self.chosen(*known) and excluded.isdisjoint(known)


def _told(changes: Sequence[Change], placed: Sequence[Change]) -> list[Change]:
    """Return changes that say whether a layer multiplies integers, or why it cannot."""
    cannot = [change for change in placed if change.skipped and change.skipped != Reason.LEFT_OUT]
    effects = {change.layer: Effect(in_integers=False, why=change.skipped) for change in cannot}
    effects |= {change.layer: Effect(in_integers=True) for change in placed if change.action}
    return [replace(change, effect=effects.get(change.layer)) for change in changes]


def _small(graph: ir.Graph, chosen: Callable[..., bool], bytes_of_all: int) -> dict[str, str]:
    """Return the smallest weights in float, together no more than `SPARED` of all, and their layers."""
    floats = {layer.weight.name or "": layer for layer in layers(graph) if chosen(*layer.names)}
    small, taken = dict[str, str](), 0
    for name in sorted(floats, key=lambda each: floats[each].nbytes):
        taken += floats[name].nbytes
        if taken > SPARED * bytes_of_all:
            break
        small[name] = floats[name].name
    return small


def ways_of_each_run(start: Way) -> Iterator[Way]:
    """Yield the way in which each run finds the ranges, if a layer can run so."""
    if dynamic.find(start.model.graph, start.chosen).names:
        yield replace(start, name=f"{start.name}each run's range", each_run=True)


def calibrated_ways(start: Way) -> Iterator[Way]:
    """Yield the ways with ranges from calibration, if a layer can run so.

    Raises:
        DataError: an activation is not finite.
    """
    model = start.model.copy()
    regions.prepare(model, start.chosen)
    start = replace(start, model=model)
    readers = regions.find(model.graph, start.chosen).readers
    observed = static.observe_ranges(model, readers, Histogram) if readers else {}
    for activations in RANGES if readers else ():
        name = f"{start.name}range {activations.chosen_by}"
        yield replace(start, name=name, calibrated=activations, observed=observed)


def mixed_ways(calibrated: Way) -> Iterator[Way]:
    """Yield the ways in which some layers' ranges come from calibration and others from each run."""
    rest = replace(calibrated, each_run=True, name=f"{calibrated.name}, each run's for other layers")
    if len(rest.layers()) > len(calibrated.layers()):
        yield rest
    kernels = regions.find(calibrated.model.graph, calibrated.chosen).kernels
    linear = tuple(layer.name for layer in kernels if layer.node.op_type != "Conv")
    if MIXED * len(kernels) <= len(linear) < len(kernels):
        name = f"{calibrated.name} for convolutions, each run's for other layers"
        yield replace(rest, besides=linear, name=name)
