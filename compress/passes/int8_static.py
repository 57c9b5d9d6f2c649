"""Weights and activations in eight bits, with ranges from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import torch

    from compress.graph.layers import Layer
    from compress.model import Model
    from compress.numerics.affine import Quantized
    from compress.numerics.ranges import Histogram, MinMax
    from compress.quantize.regions import Regions

    Observer: TypeAlias = Histogram | MinMax

INT32_ROOM = float(2**30)
"""A bias may take this many steps, half of what int32 holds, before its channel's scale is widened."""


class Int8Static(Pass, name="int8-static"):
    """Run convolutions and linear layers on 8-bit integers, activations included.

    Files shrink 4 times, and integer kernels run faster where the processor has them. The ranges
    of activations come from calibration data, read in one stream. Networks whose activations have
    rare huge values lose accuracy: compare, and exclude the layers that lose. BatchNormalization is
    folded first. Embeddings, recurrent and other weights without an integer kernel are stored in 8 bits.

    Example: ``int8-static: {calibration: mse, exclude: ["*classifier*"]}``
    """

    quantizes: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    calibration: Literal["minmax", "moving-average", "percentile", "entropy", "mse"] = "minmax"
    """How a range is chosen: the extremes, their average over batches, or from an activation's histogram."""
    percentile: float = Field(default=99.99, gt=0, le=100)
    """Share of the values within the range, in percent, for that calibration."""
    activation_bits: Literal[8, 16] = 8
    """16 is for accelerators that multiply 16 by 8 bits; ONNX Runtime's CPU kernels then compute in float."""
    symmetric: bool = False
    """Whether activations are signed with zero point 0, for accelerators that want it; a ReLU loses half."""
    weight_bits: Literal["auto", 7, 8] = "auto"
    """7 keeps sums of products from saturating on x86 without VNNI; auto looks at this machine."""
    per_channel: bool = True
    """Whether every output channel of a weight has a scale of its own, or the whole weight one."""
    rounding: Literal["nearest", "gptq", "learned"] = "nearest"
    """gptq lets the errors of a weight make up for each other on the inputs of the calibration data; learned
    tries AdaRound as well, for minutes, and keeps what is better layer by layer."""
    store_others: bool = True
    """Whether weights that no integer kernel takes are stored in 8 bits all the same."""

    def apply(self, model: Model) -> list[Change]:
        """Fold, observe the activations, and put Q/DQ pairs around what runs in integers."""
        from compress.graph.fold import fold
        from compress.quantize.regions import KERNELS

        fold(model.ir)
        rounded = self.rounded(model)
        changes = []
        if self.store_others:
            others = quantize.store_int8_weights(model, self.selects, besides=KERNELS)
            changes = [change for change in others if change.action]
        stored = {change.layer for change in changes}
        placed = self.place(model, self.observe(model), rounded)
        return changes + [change for change in placed if change.action or change.layer not in stored]

    def regions(self, model: Model) -> Regions:
        """Return what the settings choose to run in integers."""
        from compress.quantize.regions import find

        return find(model.graph, lambda layer: self.selects(*layer.names))

    def observe(self, model: Model) -> dict[str, Observer]:
        """Return what the settings want to know of each activation to be quantized, by value name."""
        from compress.numerics.ranges import Histogram, MinMax, MovingAverage

        kinds = {"minmax": MinMax, "moving-average": MovingAverage}
        return observe_ranges(model, self.regions(model).readers, kinds.get(self.calibration, Histogram))

    def rounded(self, model: Model) -> dict[str, Quantized]:
        """Return the integers of weights by name, where the settings say to choose them with care."""
        from compress.cpu import weight_bits
        from compress.graph.linear import linear_layers
        from compress.quantize.feedback import solve

        if self.rounding == "nearest":
            return {}
        chosen = [layer for layer in linear_layers(model.graph) if self.selects(*layer.names)]
        return solve(model, chosen, weight_bits(self.weight_bits), learn=self.rounding == "learned")

    def place(
        self, model: Model, observed: Mapping[str, Observer], rounded: Mapping[str, Quantized]
    ) -> list[Change]:
        """Quantize a folded model in place.

        Args:
            model: the model.
            observed: what `observe` or a like observation found.
            rounded: integers of weights by name; others are rounded to the nearest.
        """
        regions = self.regions(model)
        scales = self._quantize_activations(model.graph, regions, observed)
        changes = [self._quantize_layer(model.graph, layer, scales, rounded) for layer in regions.kernels]
        return changes + [Change(name, skipped=reason) for name, reason in regions.skipped.items()]

    def _quantize_activations(
        self, graph: ir.Graph, regions: Regions, observed: Mapping[str, Observer]
    ) -> dict[str, float]:
        """Put a Q/DQ pair behind every value of the regions; return the scales by value name."""
        from compress.quantize.nodes import quantize_activation

        scales: dict[str, float] = {}
        for value, readers in regions.readers.items():
            scale, zero_point = self._scale(observed[range_owner(value, regions.same_as).name or ""])
            quantize_activation(value, scale, zero_point, readers, final=value in regions.final)
            scales[value.name or ""] = scale
        return scales

    def _scale(self, observed: Observer) -> tuple[float, np.generic]:
        """Return scale and zero point of an activation; the zero point's type is that of the integers."""
        import numpy as np

        from compress.numerics.ranges import Histogram, scale_and_zero_point

        bits, symmetric = self.activation_bits, self.symmetric
        if isinstance(observed, Histogram) and self.calibration != "moving-average":
            extent: tuple[Any, Any] = observed.range(self.calibration, bits, symmetric, self.percentile)
        else:
            extent = observed.range(symmetric=symmetric)
        scale, zero_point = scale_and_zero_point(*extent, bits, symmetric=symmetric, signed=symmetric)
        return float(scale), np.dtype(f"{'' if symmetric else 'u'}int{bits}").type(zero_point)

    def _quantize_layer(
        self, graph: ir.Graph, layer: Layer, scales: dict[str, float], rounded: Mapping[str, Quantized]
    ) -> Change:
        from compress.cpu import weight_bits

        bits = weight_bits(self.weight_bits)
        weights = f"{bits}-bit weights per {'channel' if self.per_channel else 'tensor'}"
        story = f"{self.activation_bits}-bit activations, {weights}, range {self.calibration}"
        start = rounded.get(layer.weight.name or "") or _nearest(layer, bits, per_channel=self.per_channel)
        return quantize_kernel(graph, layer, start, scales, story)


def _nearest(layer: Layer, bits: int, *, per_channel: bool) -> Quantized:
    """Return the nearest integers of a layer's weight, in the range of its extremes."""
    import torch

    from compress.numerics import affine
    from compress.numerics.formats import IntegerFormat
    from compress.numerics.granularity import PerAxis, PerTensor

    granularity = PerAxis(layer.out_axis) if per_channel else PerTensor()
    return affine.quantize(
        torch.from_numpy(layer.array.copy()), IntegerFormat(bits, granularity, narrow=True)
    )


def quantize_kernel(
    graph: ir.Graph, layer: Layer, quantized: Quantized, input_scales: dict[str, float], story: str
) -> Change:
    """Store weight and bias of a layer whose input is quantized as integers.

    Args:
        graph: the graph, with quantized activations.
        layer: the layer.
        quantized: its weight.
        input_scales: scales of the activations by value name.
        story: what the change says was done.
    """
    import torch

    from compress.quantize.nodes import dequantize_weight

    weight = torch.from_numpy(layer.array.copy())
    before = layer.array.nbytes
    if layer.node.op_type in ("Conv", "Gemm") and len(layer.node.inputs) > 2:
        quantized = _quantize_bias(graph, layer, weight, quantized, input_scales[_activation_name(layer)])
    dequantize_weight(layer.weight, quantized)
    return Change(layer.name, story, before, quantized.bytes, quantized.relative_error(weight))


def observe_ranges(
    model: Model, values: Iterable[ir.Value], kind: Callable[[], Observer]
) -> dict[str, Observer]:
    """Return an observer of each value, made by `kind`, that has seen the calibration data, by name."""
    from compress.graph.capture import observe

    observers = {value.name or "": kind() for value in values}
    observe(
        model.ir,
        observers,
        model.batches(),
        lambda name, array: observers[name].update(array),
        progress="calibrating",
    )
    return observers


def range_owner(value: ir.Value, same_as: dict[ir.Value, ir.Value]) -> ir.Value:
    """Return the value whose range `value` takes, since operators between them only move."""
    while value in same_as:
        value = same_as[value]
    return value


def _activation_name(layer: Layer) -> str:
    """Return the name of the value whose quantizer feeds the layer."""
    dequantized = layer.node.inputs[0]
    dequantizer = dequantized.producer() if dequantized is not None else None
    quantized = dequantizer.inputs[0] if dequantizer is not None else None
    quantizer = quantized.producer() if quantized is not None else None
    value = quantizer.inputs[0] if quantizer is not None else None
    return (value.name or "") if value is not None else ""


def _quantize_bias(
    graph: ir.Graph, layer: Layer, weight: torch.Tensor, quantized: Quantized, input_scale: float
) -> Quantized:
    """Store a constant bias as int32 in steps of ``input scale x weight scale``, as integer kernels sum it.

    A channel whose steps are too fine for its bias (its weights are almost zero) gets wider ones.

    Returns:
        The layer's weight, quantized anew where scales were widened.
    """
    import numpy as np
    import torch

    from compress.graph.layers import array
    from compress.numerics import affine
    from compress.quantize.nodes import dequantize_bias

    value = layer.node.inputs[2]
    if value is None or value.const_value is None:
        return quantized
    bias = array(value).astype(np.float64).reshape(-1)
    if bias.size != layer.array.shape[layer.out_axis]:
        return quantized
    scale = quantized.scale.numpy().astype(np.float64)
    needed = np.abs(bias) / (INT32_ROOM * input_scale)
    needed = needed if scale.ndim else needed.max()
    if (needed > scale).any():
        wider = torch.from_numpy(np.maximum(scale, needed).astype(np.float32))
        quantized = affine.quantize(weight, quantized.format, scale=wider)
    steps = np.broadcast_to(np.float32(input_scale) * quantized.scale.numpy(), bias.shape)
    dequantize_bias(layer.node, np.round(bias / steps).astype(np.int32), steps)
    return quantized
