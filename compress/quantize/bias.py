"""Empirical bias correction: biases compensate for the shift of output means by quantization.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2,
in its empirical form.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from compress.changes import Change, Reason
from compress.data import Feeds
from compress.diagnose.closeness import Closeness
from compress.graph import edit
from compress.graph.capture import activations
from compress.graph.fold import fold
from compress.graph.layers import FLOATS, Layer, array, is_float_weight
from compress.graph.linear import Array, channel_axis, in_type, linear_layers
from compress.graph.walks import bias_place, depths
from compress.model import Model

MOST_BATCHES = 4
"""Batches of calibration data that are read; means converge quickly."""


def correct_bias(model: Model, chosen: Callable[..., bool]) -> list[Change]:
    """Correct the biases of chosen layers in place, unless the outputs of the model get worse.

    Args:
        model: a quantized model with calibration data and its original; changed in place.
        chosen: called with the names of a layer's node and weight.

    Raises:
        DataError: there are no calibration data.
    """
    reference = model.original.copy()
    fold(reference.ir)
    before = model.copy()
    changes = move_biases(model, reference, chosen)
    batches = list(itertools.islice(model.batches(), MOST_BATCHES))
    closeness = Closeness(reference.ir, batches)
    if closeness(model.ir) >= closeness(before.ir):
        return changes
    model.ir = before.ir
    reason = Reason.NO_GAIN.because("the outputs would come no closer to the original's")
    return [Change(change.layer, skipped=change.skipped or reason) for change in changes]


def move_biases(model: Model, reference: Model, chosen: Callable[..., bool]) -> list[Change]:
    """Correct biases in place, so that layer outputs have the means of the float model `reference`."""
    known = {value.name: value for node in model.graph for value in node.outputs}
    known |= {value.name: value for value in model.graph.inputs}
    stages: dict[int, list[_Site]] = {}
    changes = []
    linear = {layer.node: layer for layer in linear_layers(reference.graph)}
    for node, depth in depths(reference.graph, lambda node, _: node in linear).items():
        layer, target = linear[node], node.outputs[0].name or ""
        output = known.get(target)
        place = bias_place(output, layer) if output is not None else None
        if not chosen(*layer.names):
            reason = Reason.LEFT_OUT.value
        elif output is None:
            reason = Reason.USE.because("its output is not in the original, or an earlier pass scaled it")
        elif _is_float(output.producer()):
            reason = Reason.NO_GAIN.because("its weight is not quantized")
        elif place is None:
            reason = Reason.ABSENT.because("it has no bias")
        else:
            stages.setdefault(depth, []).append(_Site(layer, target, *place))
            continue
        changes.append(Change(layer.name, skipped=reason))
    sites = [site for depth in sorted(stages) for site in stages[depth]]
    batches = list(itertools.islice(model.batches(), MOST_BATCHES))
    wanted = _means(reference, sites, batches)
    for depth in sorted(stages):
        means = _means(model, stages[depth], batches)
        for site in stages[depth]:
            moved = wanted[site.target] - means[site.target]
            _add(model.graph, site, moved)
            changes.append(Change(site.layer.name, f"biases moved by up to {np.abs(moved).max():.3g}"))
    return changes


@dataclass(frozen=True, slots=True)
class _Site:
    """A layer of the original, the name of its output, and where the variant has its bias."""

    layer: Layer
    target: str
    node: ir.Node
    index: int


def _is_float(node: ir.Node | None) -> bool:
    """Tell whether a node has a float weight, or there is no node."""
    return node is None or any(is_float_weight(value) for value in node.inputs[1:2])


def _means(model: Model, sites: Sequence[_Site], batches: Sequence[Feeds]) -> dict[str, Array]:
    """Return the mean of each output channel of each layer, by the name of its output."""
    axes = {site.target: channel_axis(site.layer) for site in sites}
    sums: dict[str, Any] = dict.fromkeys(axes, 0.0)
    counts = dict.fromkeys(axes, 0)
    for values in activations(model.ir, axes, batches):
        for name, axis in axes.items():
            rows = np.moveaxis(values[name], axis, -1)
            sums[name] += rows.reshape(-1, rows.shape[-1]).sum(0, dtype=np.float64)
            counts[name] += rows.size // rows.shape[-1]
    return {name: sums[name] / max(counts[name], 1) for name in axes}


def _add(graph: ir.Graph, site: _Site, correction: Array) -> None:
    """Add to a bias, in steps of its scale if it is stored as integers."""
    reader, index = site.node, site.index
    value = reader.inputs[index]
    dequantizer = value.producer() if value is not None else None
    if dequantizer is not None:
        scale = dequantizer.inputs[1]
        assert scale is not None
        correction = np.rint(correction / array(scale))
        reader, index = dequantizer, 0
        value = reader.inputs[0]
    assert value is not None
    new = array(value) + correction.reshape(array(value).shape)
    if array(value).dtype.kind == "i":
        limits = np.iinfo(array(value).dtype)
        new = np.clip(new, limits.min, limits.max)
    content = in_type(new, value.dtype) if value.dtype in FLOATS else new.astype(array(value).dtype)
    corrected = edit.add_initializer(edit.graph_of(value), f"{value.name}.corrected", content)
    edit.set_input(reader, index, corrected)
