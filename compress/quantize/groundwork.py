"""Files by plan, which says what each layer and coupling group becomes, and what plans for a model share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from types import MappingProxyType

import onnx_ir as ir

from compress.changes import Change, Reason
from compress.cpu import weight_bits
from compress.diagnose.sensitivity import Codes
from compress.errors import PassError, did_you_mean
from compress.graph.fold import fold
from compress.graph.layers import Layer, layers
from compress.model import Model
from compress.numerics.affine import Quantized
from compress.numerics.formats import FLOATS
from compress.numerics.ranges import Histogram
from compress.prune.saliency import Importance
from compress.prune.shares import Channels
from compress.quantize.feedback import solve_widths
from compress.quantize.floats import store_float_weights
from compress.quantize.regions import KERNELS, find, prepare
from compress.quantize.static import (
    TRIED,
    Activations,
    Observer,
    Weights,
    best_ranges,
    grids_of,
    observe_ranges,
    place,
)
from compress.quantize.weight_only import store_at_widths

HALF = 16
"""Bits that stand for float16."""
NOT_NAMED = Reason.SETTINGS.because("the plan does not name it")


class Groundwork:
    """A float model, and all that plans for it share, done once and kept.

    A plan is three plain collections: `channels`, the share of its channels that a coupling group keeps, by
    the names of `channels.groups`; `weights`, bits by name of a layer (or of one weight, which goes before),
    2 to 8 for integers and 16 for float16; `activations`, the layers that multiply integers.

    The importance of channels is measured on the model as given. For each choice of channels the model is
    pruned, repaired and folded, and the ranges of its activations and the integers of its weights are found.
    A further plan with the same channels only places::

        ground = Groundwork(model)
        half = ground.pruned({"conv1": 0.5})
        half.integers([4, 8])  # optional: the data are read once for several widths
        for bits in (4, 8):
            small, changes = half.place({"conv1": bits, "fc": 8}, ["conv1"])

    Nothing that is kept depends on the plans taken before, so that the pass ``per-layer`` makes the same file
    of the same plan.

    Args:
        model: a model as `Pass.__call__` hands it to `Pass.apply`, at operator set 21 or newer where weights
            get 4 bits or fewer: ``model.prepared(21)``. It is not changed.
        importance: how important channels are told.
        repairs: whether layers that lose inputs are refitted on calibration data.
    """

    def __init__(self, model: Model, importance: Importance = "auto", *, repairs: bool = True) -> None:
        self.channels = Channels(model, importance, repairs=repairs)
        self._pruned: dict[tuple[tuple[str, int], ...], Pruned] = {}

    def pruned(self, shares: Mapping[str, float] = MappingProxyType({})) -> Pruned:
        """Return the model whose coupling groups keep these shares of their channels.

        Raises:
            DataError: there are no calibration data for importance or repair.
            ModelError: the shapes of the graph cannot be inferred, or torch cannot run it for the importance.
            PassError: a group does not exist or keeps its channels, or the pruned graph does not run.
        """
        counts = self.channels.counts(shares) if shares else {}
        key = tuple(counts.items())
        if key not in self._pruned:
            self._pruned[key] = Pruned(*self.channels.pruned(counts))
        return self._pruned[key]

    def take(
        self, channels: Mapping[str, float], weights: Mapping[str, int], activations: Collection[str]
    ) -> tuple[Model, list[Change]]:
        """Return the model that a plan makes, and what was done; see `pruned` and `Pruned.place`."""
        return self.pruned(channels).place(weights, activations)


class Pruned:
    """A model with its channels chosen, folded, and what plans for its layers share.

    Args:
        model: the float model; folded in place.
        changes: what was done to it before.
    """

    def __init__(self, model: Model, changes: Collection[Change] = ()) -> None:
        fold(model.ir)
        self.model = model
        self._changes = tuple(changes)
        self._integers: dict[int, dict[str, Quantized]] = {}

    def integers(self, widths: Collection[int]) -> dict[int, dict[str, Quantized]]:
        """Return the integers of linear weights by bits and the weight's name, found by GPTQ.

        Layers with fewer rows of inputs than features are left out, and all without calibration data. The
        data are read once for all widths that are new.

        Raises:
            DataError: the calibration data are not finite.
        """
        new = sorted(set(widths).difference(self._integers))
        if new and self.model.calibration is None:
            self._integers |= {bits: {} for bits in new}
        elif new:
            self._integers |= solve_widths(self.model, _everything, new)
        return {bits: self._integers[bits] for bits in widths}

    @property
    def kernels(self) -> list[str]:
        """Names of the layers that can multiply integers, in the order of the graph.

        Those that share a weight can do so only together.
        """
        known = {layer.name for layer in layers(self.model.graph)}
        found = find(self.ready.graph, _everything).kernels
        return [layer.name for layer in found if layer.name in known]

    @cached_property
    def ranges(self) -> Activations:
        """How ranges of activations are chosen: best for the network with all layers in 8 bits that can be.

        Raises:
            DataError: there are no calibration data, or they are not finite.
        """
        tried = [Activations(calibration, percentile) for calibration, percentile in TRIED]
        bits = weight_bits("auto")
        return best_ranges(self.ready, _everything, tried, self._observed, Weights(bits))

    def place(
        self, weights: Mapping[str, int], activations: Collection[str] = ()
    ) -> tuple[Model, list[Change]]:
        """Return a copy whose layers became what a plan says, and what was done; see `Groundwork`.

        Raises:
            DataError: there are no calibration data for ranges, or they are not finite.
            PassError: a layer does not exist, or cannot become that; the message names it.
        """
        model, changes = self.model.copy(), list(self._changes)
        widths = _widths(model.graph, weights)
        rounded = self._rounded(widths)
        if activations:
            changes += self._place_integers(model, activations, widths, rounded)
        left = {name: bits for name, bits in widths.items() if name in model.graph.initializers}
        changes += store_at_widths(model, {name: b for name, b in left.items() if b < HALF}, rounded)
        halves = {name for name, bits in weights.items() if bits == HALF}
        changes += _store_halves(model, halves) if halves else []
        done = {change.layer for change in changes}
        others = dict.fromkeys(layer.name for layer in layers(model.graph))
        return model, changes + [Change(name, skipped=NOT_NAMED) for name in others if name not in done]

    def _rounded(self, widths: Mapping[str, int]) -> dict[str, Quantized]:
        """Return the integers of weights that have one scale a channel: by GPTQ, or else the nearest."""
        found = self.integers(sorted({bits for bits in widths.values() if bits < HALF}))
        rounded = {}
        for layer in layers(self.model.graph):
            name = layer.weight.name or ""
            bits = widths.get(name, HALF)
            if bits < HALF and layer.node.op_type in KERNELS:
                rounded[name] = Weights(bits, rounded=found[bits]).of(layer)
        return rounded

    def _place_integers(
        self,
        model: Model,
        activations: Collection[str],
        widths: Mapping[str, int],
        rounded: Mapping[str, Quantized],
    ) -> list[Change]:
        """Let layers multiply integers, in place."""
        meant = _meant(model.graph, activations, widths)
        wanted = {layer.name for layer in meant}

        def chosen(*names: str) -> bool:
            return not wanted.isdisjoint(names)

        prepare(model, chosen)
        regions = find(model.graph, chosen)
        for name, reason in regions.skipped.items():
            if name in wanted:
                raise PassError(f"activations: layer {name!r} cannot multiply integers: {reason}")
        missing = [value for value in regions.readers if value.name not in self._observed]
        if missing:
            self._observed.update(observe_ranges(self.ready, missing, Histogram))
        kernels = Weights(8, rounded=rounded, packed=True)
        placed = place(model, chosen, self.ranges, self._observed, kernels, wanted)
        return [change for change in placed if change.action]

    @cached_property
    def ready(self) -> Model:
        """The model with all layers ready to multiply integers; it holds every value that could be codes."""
        model = self.model.copy()
        prepare(model, _everything)
        return model

    @cached_property
    def codes(self) -> dict[str, Codes]:
        """The codes that a value has if it has some, by its name in `ready`.

        Raises:
            DataError: there are no calibration data, or they are not finite.
        """
        around = find(self.ready.graph, _everything)
        grids = grids_of(around, self.ranges, self._observed)
        owned = {value: grids[around.range_owner(value)] for value in around.readers}
        return {value.name or "": Codes(grid.scale, grid.zero) for value, grid in owned.items()}

    @cached_property
    def _observed(self) -> dict[str, Observer]:
        readers = find(self.ready.graph, _everything).readers
        return observe_ranges(self.ready, readers, Histogram)


def _everything(*names: str) -> bool:
    return True


def _widths(graph: ir.Graph, weights: Mapping[str, int]) -> dict[str, int]:
    """Return bits by the weight's name.

    Raises:
        PassError: a layer does not exist, two ask for different bits of one weight, or it is not finite.
    """
    found: dict[str, int] = {}
    _check_names("weights", weights, graph)
    for layer in layers(graph):
        node, weight = layer.names
        bits = weights.get(weight, weights.get(node))
        if bits is None:
            continue
        if found.setdefault(weight, bits) != bits:
            raise PassError(
                f"weights: layer {node!r} asks for {bits} bits, and another layer for {found[weight]} bits "
                f"of the same weight {weight!r}"
            )
        if bits < HALF and not layer.is_finite:
            raise PassError(f"weights: layer {node!r}: its weight {weight!r} {Reason.NOT_FINITE}")
    return found


def _meant(graph: ir.Graph, activations: Collection[str], widths: Mapping[str, int]) -> list[Layer]:
    """Return the layers that are to multiply integers.

    Raises:
        PassError: a layer does not exist, or has no integer weights.
    """
    _check_names("activations", activations, graph)
    found = [layer for layer in layers(graph) if not set(activations).isdisjoint(layer.names)]
    for layer in found:
        if widths.get(layer.weight.name or "", HALF) == HALF:
            raise PassError(
                f"activations: layer {layer.name!r} multiplies integers only if its weights are integers; "
                "give it 2 to 8 bits in weights"
            )
    return found


def _check_names(setting: str, names: Collection[str], graph: ir.Graph) -> None:
    known = {name for layer in layers(graph) for name in layer.names}
    for name in names:
        if name not in known:
            raise PassError(f"{setting}: no layer with weights is called {name!r}{did_you_mean(name, known)}")


def _store_halves(model: Model, chosen: Collection[str]) -> list[Change]:
    """Store in float16 the weights and biases of these names, or of layers of these names, in place.

    Raises:
        PassError: a weight does not fit in float16.
    """
    names = set(chosen)
    stored = store_float_weights(model, lambda *known: not names.isdisjoint(known), FLOATS["float16"])
    for change in stored:
        if change.skipped.startswith((Reason.NOT_FINITE, Reason.LOSS)):
            raise PassError(f"weights: {change.layer!r} cannot be float16: {change.skipped}")
    return [change for change in stored if change.skipped != Reason.LEFT_OUT]
