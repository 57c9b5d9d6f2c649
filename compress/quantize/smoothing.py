"""SmoothQuant, for linear layers, convolutions and recurrent ones: outliers move into the weights.

Xiao et al., "SmoothQuant" (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch

from compress.changes import Change, Reason
from compress.graph import edit, linear
from compress.graph.capture import observe
from compress.graph.fold import fold
from compress.graph.layers import Layer, layers
from compress.model import Model
from compress.numerics.equalize import STRENGTHS, search_smoothing
from compress.numerics.ranges import MinMax
from compress.quantize.scaling import multiply, source, takes_scales

ROWS_OF_A_BATCH = 64
"""Rows of an activation that are kept from a batch, drawn at random."""
ROWS_KEPT = 512
"""Rows of an activation that are kept over all batches."""
CLEAR_GAIN = 0.25
"""Error with smoothing relative to that without, up to which a Mul before a convolution is worth its time."""


def smooth(model: Model, chosen: Callable[..., bool], strength: float | None = None) -> list[Change]:
    """Fold a model and smooth every input of its chosen layers, in place.

    Args:
        model: the model, with calibration data; changed in place.
        chosen: called with the names of a layer's node and weight.
        strength: share of the range that moves to the weights; searched for each input if None.

    Raises:
        DataError: there are no calibration data, or they are not finite.
    """
    fold(model.ir)
    own = {layer.node: layer for layer in linear.linear_layers(model.graph) if chosen(*layer.names)}
    found: dict[Hashable, list[Layer]] = {}
    changes = []
    for layer in layers(model.graph):
        reason = _obstacle(layer, own) if chosen(*layer.names) else Reason.LEFT_OUT
        if reason:
            changes.append(Change(layer.name, skipped=reason))
        else:
            found.setdefault(_shape(layer), []).append(layer)
    groups = list(found.values())
    tried = STRENGTHS if strength is None else (strength,)
    for readers, sample in zip(groups, _observe(model, groups), strict=True):
        done = _smooth(model.graph, readers, own, sample, tried)
        changes += [replace(done, layer=layer.name) for layer in readers]
    return changes


def _smooth(
    graph: ir.Graph,
    readers: list[Layer],
    own: Mapping[ir.Node, Layer],
    sample: _Sample,
    strengths: Sequence[float],
) -> Change:
    """Smooth layers that read one value; return the change, without the name of a layer."""
    weights = [linear.matrix(each, each.array) for each in readers]
    weight = torch.from_numpy(np.concatenate(weights, axis=2))
    observed = map(torch.from_numpy, (sample.rows, sample.low, sample.high))
    best = search_smoothing(weight, *observed, strengths=strengths)
    origin = source(readers, own)
    if best.strength is None:
        return Change("", skipped=Reason.NO_GAIN.because("smoothing would not lower its error"))
    if origin is None and readers[0].node.op_type == "Conv" and best.error > CLEAR_GAIN:
        return Change("", skipped=Reason.NO_GAIN.because("smoothing would need a Mul before it"))
    scales = best.scales.numpy()
    if origin is None:
        _insert(graph, readers, scales)
    else:
        origin.divide(graph, scales)
    for layer in readers:
        multiply(layer, scales)
    where = "a Mul before it" if origin is None else origin.node.name
    return Change("", f"smoothed with strength {best.strength:g}, scales in {where}")


def _obstacle(layer: Layer, own: Mapping[ir.Node, Layer]) -> str:
    node = layer.node
    of_steps = layer.operator.is_recurrent and layer.index == 1
    if not linear.is_linear(layer) and not of_steps:
        return Reason.USE.because(f"by {node.op_type}")
    if not layer.is_finite:
        return Reason.NOT_FINITE
    if of_steps and len(layer.weight.uses()) > 1:
        return Reason.SHARED
    if not of_steps and (node not in own or layer.weight is not node.inputs[1]):
        return Reason.SHARED if len(layer.weight.uses()) > 1 else Reason.USE.because("its product is scaled")
    if not takes_scales(layer):
        return Reason.USE.because("it has groups")
    if node.inputs[0] is None or node.inputs[0].const_value is not None:
        return Reason.USE.because("its input is constant")
    return ""


def _shape(layer: Layer) -> Hashable:
    """Return a key that is equal for layers that read the same value in the same way."""
    node = layer.node
    return node.inputs[0], node.op_type == "Conv", node.attributes.get_int("group", 1), layer.array.shape[2:]


@dataclass(frozen=True, slots=True)
class _Sample:
    """What was observed of an activation.

    Attributes:
        rows: up to `ROWS_KEPT` rows, [groups, rows, features].
        low: lowest value of each channel over all rows, [channels].
        high: highest value of each channel, [channels].
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _observe(model: Model, groups: Sequence[Sequence[Layer]]) -> list[_Sample]:
    """Return the channel extremes and some rows of the value that each group of layers reads."""
    kept: list[list[np.ndarray]] = [[] for _ in groups]
    extremes = [MinMax(axis=linear.channel_axis(readers[0])) for readers in groups]
    reading: dict[str, list[int]] = {}
    for index, readers in enumerate(groups):
        reading.setdefault(linear.source(readers[0]), []).append(index)
    random = np.random.default_rng(0)

    def update(name: str, array: np.ndarray) -> None:
        for index in reading[name]:
            extremes[index].observe(array)
            if len(kept[index]) < ROWS_KEPT // ROWS_OF_A_BATCH:
                rows, _ = linear.input_rows(groups[index][0], array, random, ROWS_OF_A_BATCH)
                kept[index].append(np.ascontiguousarray(rows, np.float32))

    observe(model.ir, reading, model.batches(), update, progress="sampling activations")
    return [
        _Sample(np.concatenate(rows, axis=1), each.low, each.high)
        for rows, each in zip(kept, extremes, strict=True)
    ]


def _insert(graph: ir.Graph, readers: Sequence[Layer], scales: np.ndarray) -> None:
    """Insert a Mul that divides the readers' input by `scales`."""
    value, nodes = readers[0].node.inputs[0], [layer.node for layer in readers]
    assert value is not None
    images = nodes[0].op_type == "Conv"
    view = (-1, *[1] * (readers[0].array.ndim - 2)) if images else (-1,)
    factors = linear.in_type(1 / scales, readers[0].dtype).reshape(view)
    inverse = edit.add_initializer(graph, f"{value.name}.smoothing", factors)
    output = ir.Value(name=f"{value.name}.smoothed", shape=value.shape, type=value.type)
    divide = ir.node("Mul", [value, inverse], outputs=[output], name=f"{value.name}.smooth")
    edit.insert_before(min(nodes, key=graph.index), divide)
    for node in nodes:
        edit.set_input(node, 0, output)
