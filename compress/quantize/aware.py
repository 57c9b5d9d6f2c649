"""Quantization-aware training: fake quantizers round values in training as they are stored afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch

from compress.changes import Change
from compress.cpu import saturates
from compress.graph import edit
from compress.graph.fold import fold
from compress.graph.layers import Layer
from compress.model import Model
from compress.numerics.affine import Quantized, quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis
from compress.numerics.ranges import UINT8, Histogram, scale_and_zero_point, within
from compress.quantize.nodes import quantize_activation
from compress.quantize.plans import Operators, Precision, plans
from compress.quantize.regions import Regions, computed_in_float, cut_at, find
from compress.quantize.static import (
    observe_ranges,
    place_numbers,
    quantize_kernels,
    sharing_weights,
    told,
)
from compress.quantize.weight_only import store
from compress.train.fake_quantizers import FakeQuantizer, insert, scale_name, scales
from compress.train.finetuning import fit
from compress.train.settings import Training
from compress.trainable.roles import trained_initializers

AUTO_RATE = 3e-4
"""The learning rate, if the setting is auto."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """What is rounded while a graph is trained.

    Attributes:
        weight_bits: bits of a weight.
        activations: whether activations are rounded to eight bits as well.
        group_size: weights that share a scale where activations stay float.
        learn_scales: whether scales are trained, or stay as observed before training.
    """

    weight_bits: int
    activations: bool
    group_size: int
    learn_scales: bool

    @property
    def kernel_bits(self) -> int:
        """Bits that the weights of an integer kernel may use on this machine."""
        return min(self.weight_bits, 7) if saturates() else self.weight_bits

    def kernel_format(self, layer: Layer) -> IntegerFormat:
        """Return the format of the weight of an integer kernel."""
        return IntegerFormat(self.kernel_bits, PerAxis(layer.out_axis), narrow=True)

    def regions(self, graph: ir.Graph, chosen: Callable[..., bool]) -> Regions:
        """Return where activations are rounded."""
        return find(graph, chosen) if self.activations else Regions()


def quantization_aware_training(
    model: Model, chosen: Callable[..., bool], how: Training, rounding: Rounding
) -> list[Change]:
    """Fold a graph, insert fake quantizers, train it, and store integers in their place.

    Args:
        model: the model, with calibration data; changed in place.
        chosen: tells from the names of a layer's node and weight whether it is quantized; all weights are
            trained.
        how: the settings of the training.
        rounding: what is rounded.

    Raises:
        DataError: there are no calibration data, or their labels are not numbers.
        ModelError: a node cannot run in torch.
        PassError: there are neither labels nor a teacher, the loss is not finite, or a process failed.
    """
    fold(model.ir)
    regions = rounding.regions(model.graph, chosen)
    copy = model.ir.clone().graph
    quantizers = _activations(model, regions) | _kernels(regions, rounding)
    quantizers |= {
        name: FakeQuantizer.of(name, stored)
        for name, (_, stored) in _store_others(copy, regions, chosen, rounding, {}).items()
    }
    if not quantizers:
        return []
    student = model.ir.clone()
    _insert_all(student.graph, rounding.regions(student.graph, chosen), quantizers)
    learnt = trained_initializers(model.ir)
    if rounding.learn_scales:
        learnt |= {scale_name(quantizer) for quantizer in quantizers.values()}
    outcome = fit(model, student, learnt, how, auto_rate=AUTO_RATE, changed=True)
    for name, value in model.graph.initializers.items():
        trained = student.graph.initializers[name].const_value
        assert trained is not None  # an initializer has content
        edit.set_initializer(value, trained)
    found = {name: scales(student.graph, quantizer) for name, quantizer in quantizers.items()}
    changes = _store_regions(regions, rounding, quantizers, found)
    if changes:
        edit.name_all(model.ir)  # readers that share a bias or a number give its name to their own
        changes = told(changes, computed_in_float(model.ir, regions))
    others = _store_others(model.graph, regions, chosen, rounding, found)
    return [Change("all weights", outcome.story()), *changes, *(change for change, _ in others.values())]


def _activations(model: Model, regions: Regions) -> dict[str, FakeQuantizer]:
    """Return how each activation of the regions is rounded, by the name of the value."""
    owners = {value: regions.range_owner(value) for value in regions.readers}
    observed = observe_ranges(model, dict.fromkeys(owners.values()), Histogram) if owners else {}
    quantizers = {}
    for value, owner in owners.items():
        scale, zero_point = scale_and_zero_point(*observed[owner.name or ""].range())
        low = -int(zero_point)
        quantizers[value.name or ""] = FakeQuantizer(
            owner.name or "", torch.from_numpy(scale), low, low + 255
        )
    return quantizers


def _kernels(regions: Regions, rounding: Rounding) -> dict[str, FakeQuantizer]:
    """Return how the weights of integer kernels are rounded, by name."""
    quantizers = {}
    for layer in regions.kernels:
        weight = torch.from_numpy(layer.array.copy())
        stored = quantize(weight, replace(rounding.kernel_format(layer), method="mse"))
        quantizers[layer.weight.name or ""] = FakeQuantizer.of(layer.weight.name or "", stored)
    return quantizers


def _insert_all(graph: ir.Graph, regions: Regions, quantizers: Mapping[str, FakeQuantizer]) -> None:
    """Insert a fake quantizer after every value that is rounded."""
    for value, readers in regions.readers.items():
        insert(graph, value, readers, quantizers[value.name or ""])
    for name, value in list(graph.initializers.items()):
        if name in quantizers:
            insert(graph, value, [(use.node, use.idx) for use in value.uses()], quantizers[name])


def _store_regions(
    regions: Regions,
    rounding: Rounding,
    quantizers: Mapping[str, FakeQuantizer],
    found: Mapping[str, torch.Tensor],
) -> list[Change]:
    """Quantize what the fake quantizers rounded; return a change per layer."""
    for value, readers in regions.readers.items():
        name, bounds = value.name or "", cut_at(regions.range_owner(value))
        zero_point = np.uint8(-quantizers[name].low)
        scale = within(float(found[name]), int(zero_point), bounds, UINT8)
        quantize_activation(value, scale, zero_point, readers, final=value in regions.final)
    story = f"8-bit activations, {rounding.kernel_bits}-bit weights per channel, trained"
    place_numbers(regions, UINT8)
    changes = []
    for sharing in sharing_weights(regions.kernels):
        weight, steps = torch.from_numpy(sharing[0].array.copy()), found[sharing[0].weight.name or ""]
        quantized = quantize(weight, rounding.kernel_format(sharing[0]), scale=steps)
        changes += quantize_kernels(sharing, quantized, story)
    return changes


def _store_others(
    graph: ir.Graph,
    regions: Regions,
    chosen: Callable[..., bool],
    rounding: Rounding,
    found: Mapping[str, torch.Tensor],
) -> dict[str, tuple[Change, Quantized]]:
    """Store the weights that no integer kernel takes; return what was stored by the weight's name.

    Args:
        graph: the graph; changed in place.
        regions: whose kernels take the weights that stay.
        chosen: tells from the names of a layer's node and weight whether it is quantized.
        rounding: what is rounded.
        found: trained scales by name; other weights get the scales of the least squared error.
    """
    kernels = {layer.name for layer in regions.kernels}
    operators: Operators = "standard" if rounding.activations else "onnxruntime"
    planned, _ = plans(
        graph,
        lambda layer: layer.name not in kernels and chosen(*layer.names),
        Precision(rounding.weight_bits, rounding.group_size, method="mse", fewest_weights=0),
        operators,
    )
    stored: dict[str, tuple[Change, Quantized]] = {}
    for plan in planned:
        name = plan.layer.weight.name or ""
        quantized = quantize(plan.weight(), plan.format, scale=found.get(name))
        change = store(plan, quantized, operators)
        if change.action:
            stored[name] = change, quantized
    return stored
