"""Static quantization: layers on 8-bit integers, with activation ranges from calibration data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from compress.changes import Change
from compress.diagnose.closeness import Closeness
from compress.graph import edit
from compress.graph.capture import observe
from compress.graph.fold import fold
from compress.graph.layers import Layer, array
from compress.model import Model
from compress.numerics import affine
from compress.numerics.affine import Quantized
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis, PerTensor
from compress.numerics.ranges import Histogram, MinMax, MovingAverage, scale_and_zero_point, within
from compress.quantize.feedback import kernel_format, solve_all
from compress.quantize.nodes import (
    dequantize_bias,
    dequantize_number,
    dequantize_weight,
    quantize_activation,
    rescale,
)
from compress.quantize.reconstruction import reconstruct
from compress.quantize.regions import KERNELS, Regions, computed_in_float, cut_at, find, prepare
from compress.quantize.weight_only import store_int8_weights

Observer: TypeAlias = Histogram | MinMax
Calibration: TypeAlias = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
TRIED: tuple[tuple[Calibration, float], ...] = (
    ("minmax", 100.0),
    ("percentile", 99.99),
    ("percentile", 99.9),
    ("mse", 100.0),
    ("entropy", 100.0),
)
"""Calibrations, each with its percentile, that are worth comparing; the first wins ties."""
COMPARED_BATCHES = 4
"""Batches of calibration data on which they are compared."""
Rounding: TypeAlias = Literal["nearest", "gptq", "learned", "blocks"]
OBSERVERS = {"minmax": MinMax, "moving-average": MovingAverage}
"""Observers of an activation by calibration; the other calibrations use a histogram."""
SLACK = float(np.finfo(np.float32).eps)
"""How far integers may stand for numbers beyond a Clip before them that the runtime then leaves out."""
INT32_ROOM = float(2**30)
"""Largest number of steps of a bias, half of int32's range; beyond it, its channel's scale is widened."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that the integers of an activation stand for.

    Attributes:
        scale: distance between two of them.
        zero_point: the integer that stands for zero.
        integers: what the integers can be.
    """

    scale: float
    zero_point: int
    integers: IntegerFormat

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest number."""
        lowest, highest = self.integers.limits
        return (lowest - self.zero_point) * self.scale, (highest - self.zero_point) * self.scale

    @property
    def zero(self) -> np.generic:
        """The zero point, in the type of the integers."""
        signed = "" if self.integers.signed else "u"
        zero: np.generic = np.dtype(f"{signed}int{self.integers.bits}").type(self.zero_point)
        return zero


@dataclass(frozen=True, slots=True)
class Activations:
    """How activations become integers.

    Attributes:
        calibration: how a range is chosen.
        percentile: share of the values within the range, in percent, for the calibration of that name.
        bits: bits of the integers, 8 or 16.
        symmetric: whether they are signed, with zero point 0.
    """

    calibration: Calibration
    percentile: float = 99.99
    bits: int = 8
    symmetric: bool = False

    @property
    def chosen_by(self) -> str:
        """How ranges are chosen, in words."""
        share = f" {self.percentile:g}" if self.calibration == "percentile" else ""
        return f"{self.calibration}{share}"

    def observer(self) -> Observer:
        """Return a new observer of an activation."""
        return OBSERVERS.get(self.calibration, Histogram)()

    @property
    def for_accelerators(self) -> bool:
        """Whether the integers are of a kind that is asked for by accelerators, not by ONNX Runtime."""
        return self.bits != 8 or self.symmetric

    @property
    def integers(self) -> IntegerFormat:
        """What activations become."""
        return IntegerFormat(self.bits, symmetric=self.symmetric, signed=self.symmetric)

    def grid(self, observed: Observer, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Grid:
        """Return scale and zero point of an activation, whose integers stand for numbers within `bounds`."""
        integers = self.integers
        if isinstance(observed, Histogram) and self.calibration != "moving-average":
            extent: tuple[Any, Any] = observed.range(self.calibration, integers, self.percentile)
        else:
            extent = observed.range(integers=integers)
        scale, zero_point = scale_and_zero_point(*extent, integers)
        return Grid(within(float(scale), int(zero_point), bounds, integers), int(zero_point), integers)


@dataclass(frozen=True, slots=True)
class Weights:
    """How the weights of integer kernels become integers.

    Attributes:
        bits: 8, or 7 where sums of products would saturate, or fewer.
        per_channel: whether every output channel has a scale of its own, or the whole weight one.
        rounded: integers by the weight's name, of any bits; others are rounded to the nearest.
        packed: whether weights of 4 bits and fewer are stored in 4, not in 8; ONNX Runtime, whose kernels
            multiply bytes, then computes in float.
    """

    bits: int
    per_channel: bool = True
    rounded: Mapping[str, Quantized] = field(default_factory=dict)
    packed: bool = False

    def of(self, layer: Layer) -> Quantized:
        """Return the integers of a layer's weight."""
        known = self.rounded.get(layer.weight.name or "")
        if known is not None:
            return known
        granularity = PerAxis(layer.out_axis) if self.per_channel else PerTensor()
        wanted = kernel_format(self.bits, granularity)
        return affine.quantize(torch.from_numpy(layer.array.copy()), wanted)

    def stored(self, integers: Quantized) -> Quantized:
        """Return integers in the bits that the file has for each."""
        return integers.in_bits(4 if self.packed and integers.bits <= 4 else 8)

    def told(self, integers: Quantized) -> str:
        """Return in words what a weight became."""
        return f"{integers.bits}-bit weights per {'channel' if self.per_channel else 'tensor'}"


def int8_static(
    model: Model,
    chosen: Callable[..., bool],
    activations: Sequence[Activations],
    *,
    weight_bits: int,
    per_channel: bool,
    rounding: Rounding,
    store_others: bool,
) -> list[Change]:
    """Fold a model, observe its activations, and insert Q/DQ pairs around what runs on integers, in place.

    Args:
        model: the model, with calibration data; changed in place.
        chosen: called with the names of a layer's node and weight.
        activations: how activations become integers; of several, what agrees best with the original is kept.
        weight_bits: bits of the weights, 4, 7 or 8.
        per_channel: whether every output channel of a weight has a scale of its own.
        rounding: how the integers of weights are chosen.
        store_others: whether weights without an integer kernel are stored in 8 bits too.

    Raises:
        DataError: there are no calibration data, or they are not finite.
        PassError: a weight is not finite; the message names the layer.
    """
    fold(model.ir)
    rounded = {} if rounding == "nearest" else solve_all(model, chosen, weight_bits, rounding == "learned")
    weights, learnt = Weights(weight_bits, per_channel, rounded), list[Change]()
    others = store_int8_weights(model, chosen, besides=KERNELS) if store_others else []
    stored = [change for change in others if change.action]
    prepare(model, chosen)
    ranges, observed = activations[0], dict[str, Observer]()
    if rounding == "blocks" or len(activations) > 1:
        readers = find(model.graph, chosen).readers
        kind = ranges.observer if len(activations) == 1 else Histogram
        observed = observe_ranges(model, readers, kind) if readers else {}
    if len(activations) > 1 and observed:
        ranges = best_ranges(model, chosen, activations, observed, weights)
    if rounding == "blocks" and observed:
        weights, story = learn_in_blocks(model, chosen, ranges, observed, weights)
        learnt.append(Change("all weights", story))
    placed = place(model, chosen, ranges, observed, weights)
    done = {change.layer for change in stored}
    return [*learnt, *stored, *(change for change in placed if change.action or change.layer not in done)]


def best_ranges(
    model: Model,
    chosen: Callable[..., bool],
    activations: Sequence[Activations],
    observed: Mapping[str, Observer],
    weights: Weights,
) -> Activations:
    """Return those ranges with which a model agrees best with the original on calibration data.

    Which ones do, no error of the values themselves tells, nor one behind the layers that read them: a rare
    huge value decides the output of a transformer, and that of many image networks not at all.
    """
    closeness = Closeness(model.ir, list(itertools.islice(model.batches(), COMPARED_BATCHES)))

    def close(tried: Activations) -> float:
        attempt = model.copy()
        place(attempt, chosen, tried, observed, weights)
        return closeness(attempt.ir)

    return max(activations, key=close)


def learn_in_blocks(
    model: Model,
    chosen: Callable[..., bool],
    activations: Activations,
    observed: Mapping[str, Observer],
    weights: Weights,
    seconds: float = math.inf,
) -> tuple[Weights, str]:
    """Return `weights` with the rounding that block reconstruction learns, and what it found, in words.

    Args:
        model: a folded and prepared model, with calibration data.
        chosen: called with the names of a layer's node and weight.
        activations: how activations become integers.
        observed: observers of all activations of the regions, by name.
        weights: how weights become integers, from where learning goes on.
        seconds: time that it may take, about.
    """
    regions = find(model.graph, chosen)
    grids = grids_of(regions, activations, observed)
    by_name = {value.name or "": grids[regions.range_owner(value)] for value in regions.readers}
    start = {layer.weight.name or "": weights.of(layer) for layer in regions.kernels}
    learned, story = reconstruct(model, chosen, by_name, start, seconds)
    return replace(weights, rounded={**weights.rounded, **learned}), story


def place(
    model: Model,
    chosen: Callable[..., bool],
    activations: Activations,
    observed: Mapping[str, Observer],
    weights: Weights,
    meant: Collection[str] = (),
) -> list[Change]:
    """Insert Q/DQ pairs around what runs on integers, in place; return a change per layer.

    What the runtime computes in float between Q/DQ pairs all the same loses them again, except those that
    are meant for accelerators.

    Args:
        model: a folded and prepared model, with data to calibrate on; changed in place.
        chosen: called with the names of a layer's node and weight.
        activations: how activations become integers.
        observed: observers of activations by name; others are made from the model's calibration data.
        weights: how weights become integers.
        meant: names of layers that keep Q/DQ pairs, whatever this runtime does.
    """
    observed, floats = dict(observed), set[str]()
    while True:
        attempt = model.copy()
        regions = find(attempt.graph, chosen, floats)
        missing = [value for value in regions.readers if value.name not in observed]
        observed |= observe_ranges(model, missing, activations.observer) if missing else {}
        changes = _place(regions, activations, observed, weights)
        edit.name_all(attempt.ir)  # readers that share a bias or a number give its name to their own
        found = computed_in_float(attempt.ir, regions)
        if found <= set(meant) or activations.for_accelerators:
            break
        floats |= found.difference(meant)
    model.ir = attempt.ir
    changes = told(changes, found)
    return changes + [Change(name, skipped=reason) for name, reason in regions.skipped.items()]


def told(changes: Iterable[Change], floats: Collection[str]) -> list[Change]:
    """Return changes of layers, which say so where the runtime computes a layer in float."""
    return [
        replace(change, action=f"{change.action}, in float in ONNX Runtime")
        if change.layer in floats
        else change
        for change in changes
    ]


def _place(
    regions: Regions, activations: Activations, observed: Mapping[str, Observer], weights: Weights
) -> list[Change]:
    """Insert Q/DQ pairs; return a change per layer that runs on integers."""
    grids = grids_of(regions, activations, observed)
    for value, readers in regions.readers.items():
        grid = grids[regions.range_owner(value)]
        quantize_activation(value, grid.scale, grid.zero, readers, final=value in regions.final)
    place_numbers(regions, activations.integers)
    changes = []
    for sharing in sharing_weights(regions.kernels):
        integers = weights.of(sharing[0])
        how = f"{weights.told(integers)}, range {activations.chosen_by}"
        action = f"{activations.bits}-bit activations, {how}"
        changes += quantize_kernels(sharing, weights.stored(integers), action)
    return changes


def grids_of(
    regions: Regions, activations: Activations, observed: Mapping[str, Observer]
) -> dict[ir.Value, Grid]:
    """Return the grid of every value that others do not give theirs.

    What a Concat joins takes its grid where that costs at most one bit and stays within an activation's ends.
    """
    owners = dict.fromkeys(regions.range_owner(value) for value in regions.readers)
    bounds = {value: cut_at(value) for value in owners}
    grids = {value: activations.grid(observed[value.name or ""], bounds[value]) for value in owners}
    wholes = {regions.range_owner(part): regions.range_owner(whole) for part, whole in regions.joined.items()}
    for part in reversed(wholes):
        if part is wholes[part] or wholes[part] not in grids:
            continue
        (low, high), grid = bounds[part], grids[wholes[part]]
        fits = low <= grid.ends[0] + SLACK and grid.ends[1] <= high + SLACK
        if fits and grid.scale <= 2 * grids[part].scale:
            grids[part] = grid
    return grids


def place_numbers(regions: Regions, integers: IntegerFormat) -> None:
    """Store the constant numbers of regions, whose values have Q/DQ pairs, as codes or in scales."""
    for node in regions.rescaled:
        rescale(node)
    for node, index in regions.constants:
        dequantize_number(node, index, integers)


def sharing_weights(kernels: Iterable[Layer]) -> list[list[Layer]]:
    """Return the layers, those with the same weight together."""
    found: dict[ir.Value, list[Layer]] = {}
    for layer in kernels:
        found.setdefault(layer.weight, []).append(layer)
    return list(found.values())


def quantize_kernels(sharing: Sequence[Layer], quantized: Quantized, action: str) -> list[Change]:
    """Store as integers weight and biases of layers with one weight, whose inputs have Q/DQ pairs.

    Args:
        sharing: the layers.
        quantized: their weight.
        action: what the changes say was done.
    """
    first = sharing[0]
    weight = torch.from_numpy(first.array.copy())
    biases = {layer.node: bias for layer in sharing if (bias := _constant_bias(layer)) is not None}
    quantized = _with_room(sharing, biases, weight, quantized)
    for layer in sharing:
        if layer.node in biases:
            steps = np.broadcast_to(_input_scale(layer) * quantized.scale.numpy(), biases[layer.node].shape)
            dequantize_bias(layer.node, np.round(biases[layer.node] / steps).astype(np.int32), steps)
    dequantize_weight(first.weight, quantized)
    done = Change(first.name, action, first.nbytes, quantized.bytes, quantized.relative_error(weight))
    shared = f"{action}, the weight of {first.name}"
    return [done, *(Change(layer.name, shared, error=done.error) for layer in sharing[1:])]


def observe_ranges(
    model: Model, values: Iterable[ir.Value], kind: Callable[[], Observer]
) -> dict[str, Observer]:
    """Return an observer of each value, made by `kind`, that has seen the calibration data, by name."""
    observers = {value.name or "": kind() for value in values}
    observe(
        model.ir,
        observers,
        model.batches(),
        lambda name, array: observers[name].observe(array),
        progress="calibrating",
    )
    return observers


def _constant_bias(layer: Layer) -> npt.NDArray[np.float64] | None:
    """Return the bias of a layer, one number a channel; None without one that is constant."""
    place = layer.operator.bias
    value = layer.node.inputs[place] if place is not None and place < len(layer.node.inputs) else None
    if value is None or value.const_value is None:
        return None
    bias = array(value).astype(np.float64).reshape(-1)
    return bias if bias.size == layer.array.shape[layer.out_axis] else None


def _with_room(
    sharing: Sequence[Layer],
    biases: Mapping[ir.Node, npt.NDArray[np.float64]],
    weight: torch.Tensor,
    quantized: Quantized,
) -> Quantized:
    """Return a weight quantized so that biases fit in int32 as multiples of ``input scale x weight scale``.

    That is how integer kernels sum them. A channel whose scale is too small for its bias, because its weights
    are almost zero, gets a larger one.
    """
    scale = quantized.scale.numpy().astype(np.float64)
    wider = scale
    for layer in sharing:
        if layer.node in biases:
            needed = np.abs(biases[layer.node]) / (INT32_ROOM * float(_input_scale(layer)))
            wider = np.maximum(wider, needed if scale.ndim else needed.max())
    if (wider > scale).any():
        return affine.quantize(weight, quantized.format, scale=torch.from_numpy(wider.astype(np.float32)))
    return quantized


def _input_scale(layer: Layer) -> np.float32:
    """Return the scale of the DequantizeLinear that feeds a layer."""
    value = layer.node.inputs[0]
    dequantizer = value.producer() if value is not None else None
    scale = dequantizer.inputs[1] if dequantizer is not None else None
    assert scale is not None, f"{layer.name} reads no quantized value"
    return np.float32(array(scale))
