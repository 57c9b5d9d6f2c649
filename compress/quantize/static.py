"""Static quantization: layers on 8-bit integers, with activation ranges from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir
import torch

from compress.changes import Change
from compress.graph.capture import observe
from compress.graph.fold import fold
from compress.graph.layers import Layer, array
from compress.graph.linear import linear_layers
from compress.model import Model
from compress.numerics import affine
from compress.numerics.affine import Quantized
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis, PerTensor
from compress.numerics.ranges import Histogram, MinMax, MovingAverage, scale_and_zero_point
from compress.quantize.feedback import solve
from compress.quantize.nodes import dequantize_bias, dequantize_weight, quantize_activation
from compress.quantize.regions import KERNELS, Regions, find
from compress.quantize.weight_only import store_int8_weights

Observer: TypeAlias = Histogram | MinMax
Calibration: TypeAlias = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
OBSERVERS = {"minmax": MinMax, "moving-average": MovingAverage}
"""Observers of an activation by calibration; the other calibrations use a histogram."""
INT32_ROOM = float(2**30)
"""Largest number of steps of a bias, half of int32's range; beyond it, its channel's scale is widened."""


@dataclass(frozen=True, slots=True)
class Activations:
    """How activations become integers.

    Attributes:
        calibration: how a range is chosen.
        percentile: share of the values within the range, in percent, for the calibration of that name.
        bits: bits of the integers, 8 or 16.
        symmetric: whether they are signed, with zero point 0.
    """

    calibration: Calibration = "minmax"
    percentile: float = 99.99
    bits: int = 8
    symmetric: bool = False

    def observer(self) -> Observer:
        """Return a new observer of an activation."""
        return OBSERVERS.get(self.calibration, Histogram)()

    def scale(self, observed: Observer) -> tuple[float, np.generic]:
        """Return scale and zero point of an activation; the zero point's type is that of the integers."""
        integers = IntegerFormat(self.bits, symmetric=self.symmetric, signed=self.symmetric)
        if isinstance(observed, Histogram) and self.calibration != "moving-average":
            extent: tuple[Any, Any] = observed.range(self.calibration, integers, self.percentile)
        else:
            extent = observed.range(integers=integers)
        scale, zero_point = scale_and_zero_point(*extent, integers)
        return float(scale), np.dtype(f"{'' if self.symmetric else 'u'}int{self.bits}").type(zero_point)


@dataclass(frozen=True, slots=True)
class Weights:
    """How the weights of integer kernels become integers.

    Attributes:
        bits: 8, or 7 where sums of products would saturate.
        per_channel: whether every output channel has a scale of its own, or the whole weight one.
        rounded: integers by the weight's name; others are rounded to the nearest.
    """

    bits: int
    per_channel: bool = True
    rounded: Mapping[str, Quantized] = field(default_factory=dict)

    def of(self, layer: Layer) -> Quantized:
        """Return the integers of a layer's weight."""
        known = self.rounded.get(layer.weight.name or "")
        if known is not None:
            return known
        granularity = PerAxis(layer.out_axis) if self.per_channel else PerTensor()
        wanted = IntegerFormat(self.bits, granularity, narrow=True)
        return affine.quantize(torch.from_numpy(layer.array.copy()), wanted)

    def __str__(self) -> str:
        return f"{self.bits}-bit weights per {'channel' if self.per_channel else 'tensor'}"


def int8_static(
    model: Model,
    chosen: Callable[..., bool],
    activations: Activations,
    *,
    weight_bits: int,
    per_channel: bool,
    rounding: Literal["nearest", "gptq", "learned"],
    store_others: bool,
) -> list[Change]:
    """Fold a model, observe its activations, and insert Q/DQ pairs around what runs on integers, in place.

    Args:
        model: the model, with calibration data; changed in place.
        chosen: called with the names of a layer's node and weight.
        activations: how activations become integers.
        weight_bits: bits of the weights, 7 or 8.
        per_channel: whether every output channel of a weight has a scale of its own.
        rounding: how the integers of weights are chosen.
        store_others: whether weights without an integer kernel are stored in 8 bits too.

    Raises:
        DataError: there are no calibration data, or they are not finite.
        PassError: a weight is not finite; the message names the layer.
    """
    fold(model.ir)
    rounded = {} if rounding == "nearest" else solve_all(model, chosen, weight_bits, rounding == "learned")
    others = store_int8_weights(model, chosen, besides=KERNELS) if store_others else []
    stored = [change for change in others if change.action]
    regions = find(model.graph, chosen)
    observed = observe_ranges(model, regions.readers, activations.observer)
    placed = place(regions, activations, observed, Weights(weight_bits, per_channel, rounded))
    done = {change.layer for change in stored}
    return stored + [change for change in placed if change.action or change.layer not in done]


def solve_all(
    model: Model, chosen: Callable[..., bool], bits: int, learn: bool = False
) -> dict[str, Quantized]:
    """Return the integers of all chosen linear weights by GPTQ, and AdaRound if `learn`, by weight name."""
    layers = [layer for layer in linear_layers(model.graph) if chosen(*layer.names)]
    return solve(model, layers, bits, learn=learn)


def place(
    regions: Regions,
    activations: Activations,
    observed: Mapping[str, Observer],
    weights: Weights,
) -> list[Change]:
    """Insert Q/DQ pairs around what runs on integers, in place; return a change per layer.

    Args:
        regions: what is to run in integers, of a folded graph.
        activations: how activations become integers.
        observed: an observer of each activation of the regions, by value name.
        weights: how weights become integers.
    """
    for value, readers in regions.readers.items():
        scale, zero_point = activations.scale(observed[regions.range_owner(value).name or ""])
        quantize_activation(value, scale, zero_point, readers, final=value in regions.final)
    action = f"{activations.bits}-bit activations, {weights}, range {activations.calibration}"
    changes = [quantize_kernel(layer, weights.of(layer), action) for layer in regions.kernels]
    return changes + [Change(name, skipped=reason) for name, reason in regions.skipped.items()]


def quantize_kernel(layer: Layer, quantized: Quantized, action: str) -> Change:
    """Store as integers the weight and bias of a layer whose input has a Q/DQ pair.

    Args:
        layer: the layer.
        quantized: its weight.
        action: what the change says was done.
    """
    weight = torch.from_numpy(layer.array.copy())
    before = layer.array.nbytes
    if layer.operator.bias is not None and len(layer.node.inputs) > layer.operator.bias:
        quantized = _quantize_bias(layer, weight, quantized)
    dequantize_weight(layer.weight, quantized)
    return Change(layer.name, action, before, quantized.bytes, quantized.relative_error(weight))


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


def _quantize_bias(layer: Layer, weight: torch.Tensor, quantized: Quantized) -> Quantized:
    """Store a constant bias as int32 in steps of ``input scale x weight scale``, as integer kernels sum it.

    A channel whose scale is too small for its bias, because its weights are almost zero, gets a larger one.

    Returns:
        The layer's weight, quantized again if a scale was enlarged.
    """
    value = layer.node.inputs[2]
    if value is None or value.const_value is None:
        return quantized
    bias = array(value).astype(np.float64).reshape(-1)
    if bias.size != layer.array.shape[layer.out_axis]:
        return quantized
    input_scale = _input_scale(layer)
    scale = quantized.scale.numpy().astype(np.float64)
    needed = np.abs(bias) / (INT32_ROOM * float(input_scale))
    needed = needed if scale.ndim else needed.max()
    if (needed > scale).any():
        wider = torch.from_numpy(np.maximum(scale, needed).astype(np.float32))
        quantized = affine.quantize(weight, quantized.format, scale=wider)
    steps = np.broadcast_to(input_scale * quantized.scale.numpy(), bias.shape)
    dequantize_bias(layer.node, np.round(bias / steps).astype(np.int32), steps)
    return quantized


def _input_scale(layer: Layer) -> np.float32:
    """Return the scale of the DequantizeLinear that feeds a layer."""
    value = layer.node.inputs[0]
    dequantizer = value.producer() if value is not None else None
    scale = dequantizer.inputs[1] if dequantizer is not None else None
    assert scale is not None, f"{layer.name} reads no quantized value"
    return np.float32(array(scale))
