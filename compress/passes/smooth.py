"""SmoothQuant, for convolutions too: outliers of activations move into the weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from compress.graph.layers import Layer
    from compress.model import Model

ROWS_OF_A_BATCH = 64
"""Rows of each activation kept from a batch, drawn at random."""
ROWS_KEPT = 512
CLEAR_GAIN = 0.25
"""Error with smoothing over that without, below which a Mul before a convolution is worth its time."""


class Smooth(Pass, name="smooth"):
    """Divide the inputs of layers by a scale per channel, and multiply their weights by it.

    The outputs stay the same, and an input whose channels differ by orders of magnitude becomes
    easy to quantize with one scale: put it before `int8-static`. It takes linear layers and
    convolutions, without groups or depthwise. The strength, how much range moves into the weights, is
    searched for every input. Scales go into what makes the input (a layer, a normalization or a Mul),
    behind ReLU and pooling too, where it feeds these layers alone. Elsewhere, as behind a ReLU6 or a
    residual sum, a Mul is put before them, at a small cost in time; before a convolution only if its
    error falls to a quarter. It does not pay in every network: EfficientNet-Lite0 agrees
    with its original to 21 dB with it and without. BatchNormalization is folded first.

    Xiao et al., "SmoothQuant" (2022).

    Example: ``smooth: {strength: 0.8}``
    """

    needs_calibration: ClassVar[bool] = True

    strength: float | None = Field(default=None, ge=0, le=1)
    """Share of the range that moves to the weights; searched for each input if left out."""

    def apply(self, model: Model) -> list[Change]:
        """Smooth every input of selected layers."""
        from compress.graph.fold import fold
        from compress.graph.layers import layers
        from compress.graph.linear import linear_layers

        fold(model.ir)
        own = {layer.node: layer for layer in linear_layers(model.graph) if self.selects(*layer.names)}
        found: dict[Hashable, list[Layer]] = {}
        changes = []
        for layer in layers(model.graph):
            reason = _obstacle(layer, own) if self.selects(*layer.names) else "not selected"
            if reason:
                changes.append(Change(layer.name, skipped=reason))
            else:
                found.setdefault(_shape(layer), []).append(layer)
        groups = list(found.values())
        for readers, sample in zip(groups, _observe(model, groups), strict=True):
            done = self._smooth(model.graph, readers, own, sample)
            changes += [replace(done, layer=layer.name) for layer in readers]
        return changes

    def _smooth(
        self, graph: ir.Graph, readers: list[Layer], own: Mapping[ir.Node, Layer], sample: _Sample
    ) -> Change:
        """Smooth layers that read one value; say what was done to them."""
        import torch

        from compress.graph.linear import matrix
        from compress.numerics.equalize import STRENGTHS, search_smoothing
        from compress.quantize.scaling import multiply, source

        weight = torch.from_numpy(np.concatenate([matrix(each, each.array) for each in readers], axis=2))
        tried = STRENGTHS if self.strength is None else (self.strength,)
        observed = map(torch.from_numpy, (sample.rows, sample.low, sample.high))
        best = search_smoothing(weight, *observed, strengths=tried)
        origin = source(readers, own)
        if best.strength is None:
            return Change("", skipped="smoothing would not lower its error")
        if origin is None and readers[0].node.op_type == "Conv" and best.error > CLEAR_GAIN:
            return Change("", skipped="smoothing would take a Mul before it and gain too little")
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
    from compress.quantize.scaling import takes_scales

    node = layer.node
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return f"{node.op_type} is not a linear layer or convolution"
    if node not in own or layer.weight is not node.inputs[1]:
        return "its weight is shared, or it is more than a plain product"
    if not takes_scales(layer):
        return "its weight has groups"
    if node.inputs[0] is None or node.inputs[0].const_value is not None:
        return "its input is constant"
    return ""


def _shape(layer: Layer) -> Hashable:
    """Return a key that layers share which read the same value in the same way."""
    node = layer.node
    return node.inputs[0], node.op_type == "Conv", node.attributes.get_int("group", 1), layer.array.shape[2:]


@dataclass(frozen=True, slots=True)
class _Sample:
    """What was seen of an activation.

    Attributes:
        rows: up to `ROWS_KEPT` of them, [groups, rows, features].
        low: lowest value of each channel over all rows, [channels].
        high: highest value.
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _observe(model: Model, groups: Sequence[Sequence[Layer]]) -> list[_Sample]:
    """Return, of what each group of layers reads, the extremes of the channels and some rows."""
    from compress.graph.capture import observe
    from compress.graph.linear import channel_axis, input_rows, source
    from compress.numerics.ranges import MinMax

    kept: list[list[np.ndarray]] = [[] for _ in groups]
    extremes = [MinMax(axis=channel_axis(readers[0])) for readers in groups]
    reading: dict[str, list[int]] = {}
    for index, readers in enumerate(groups):
        reading.setdefault(source(readers[0]), []).append(index)
    random = np.random.default_rng(0)

    def update(name: str, array: np.ndarray) -> None:
        for index in reading[name]:
            extremes[index].update(array)
            if len(kept[index]) < ROWS_KEPT // ROWS_OF_A_BATCH:
                rows, _ = input_rows(groups[index][0], array, random, ROWS_OF_A_BATCH)
                kept[index].append(np.ascontiguousarray(rows, np.float32))

    observe(model.ir, reading, model.batches(), update, progress="sampling activations")
    return [
        _Sample(np.concatenate(rows, axis=1), each.low, each.high)
        for rows, each in zip(kept, extremes, strict=True)
    ]


def _insert(graph: ir.Graph, readers: Sequence[Layer], scales: np.ndarray) -> None:
    """Let the readers see their input divided by `scales`, by a Mul."""
    import onnx_ir as ir

    from compress.graph import edit

    value, nodes = readers[0].node.inputs[0], [layer.node for layer in readers]
    assert value is not None
    images = nodes[0].op_type == "Conv"
    view = (-1, *[1] * (readers[0].array.ndim - 2)) if images else (-1,)
    factors = (1 / scales).astype(np.float32).reshape(view)
    inverse = edit.add_initializer(graph, f"{value.name}.smoothing", factors)
    output = ir.Value(name=f"{value.name}.smoothed", shape=value.shape, type=value.type)
    divide = ir.node("Mul", [value, inverse], outputs=[output], name=f"{value.name}.smooth")
    edit.insert_before(min(nodes, key=graph.index), divide)
    for node in nodes:
        edit.set_input(node, 0, output)
