"""SmoothQuant: outliers of activations move into the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from compress.passes.base import Change, Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from compress.graph.layers import Layer
    from compress.model import Model

ROWS_OF_A_BATCH = 64
"""Rows of each activation kept from a batch, evenly spread."""
ROWS_KEPT = 512


class Smooth(Pass, name="smooth"):
    """Divide the inputs of linear layers by a scale per feature, and multiply their weights by it.

    The outputs stay the same, and an input whose features differ by orders of magnitude becomes
    easy to quantize with one scale: put it before `int8-static`. The strength, how much range moves
    into the weights, is searched for every input. Scales go into a LayerNormalization where that
    alone feeds the layers; elsewhere a Mul is put before them, at a small cost in time.

    Xiao et al., "SmoothQuant" (2022).

    Example: ``smooth: {strength: 0.8}``
    """

    needs_calibration: ClassVar[bool] = True

    strength: float | None = Field(default=None, ge=0, le=1)
    """Share of the range that moves to the weights; searched for each input if left out."""

    def apply(self, model: Model) -> list[Change]:
        """Smooth every input of selected linear layers."""
        from compress.graph.layers import layers

        found: dict[ir.Value, list[Layer]] = {}
        skipped = []
        for layer in layers(model.graph):
            reason = _obstacle(layer) if self.selects(*layer.names) else "not selected"
            if reason:
                skipped.append(Change(layer.name, skipped=reason))
            elif (value := layer.node.inputs[0]) is not None:
                found.setdefault(value, []).append(layer)
        samples = _observe(model, [value.name or "" for value in found])
        changes = [
            change
            for value, readers in found.items()
            for change in self._smooth(model.graph, value, readers, samples[value.name or ""])
        ]
        return changes + skipped

    def _smooth(
        self, graph: ir.Graph, value: ir.Value, readers: list[Layer], sample: _Sample
    ) -> list[Change]:
        import torch

        from compress.numerics.equalize import STRENGTHS, search_smoothing

        weight = torch.from_numpy(np.concatenate([layer.array for layer in readers], axis=1))
        tried = STRENGTHS if self.strength is None else (self.strength,)
        strength, scales = search_smoothing(
            weight, *map(torch.from_numpy, (sample.rows, sample.low, sample.high)), strengths=tried
        )
        if strength is None:
            return [Change(layer.name, skipped="smoothing would not lower its error") for layer in readers]
        where = _divide(graph, value, readers, scales.numpy())
        for layer in readers:
            _multiply(layer, scales.numpy())
        return [Change(layer.name, f"smoothed with strength {strength:g}, {where}") for layer in readers]


def _obstacle(layer: Layer) -> str:
    node = layer.node
    if node.op_type not in ("MatMul", "Gemm"):
        return f"{node.op_type} is not a linear layer"
    if layer.weight is not node.inputs[1] or len(layer.weight.uses()) > 1:
        return "its weight is shared"
    if node.inputs[0] is None or node.inputs[0].const_value is not None:
        return "its input is constant"
    if node.op_type == "Gemm" and (layer.out_axis == 0 or bool(node.attributes.get_int("transA", 0))):
        return "it reads a transposed matrix"
    return ""


@dataclass(frozen=True, slots=True)
class _Sample:
    """What was seen of an activation.

    Attributes:
        rows: up to `ROWS_KEPT` of them, [rows, features].
        low: lowest value of each feature over all rows, [features].
        high: highest value.
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _observe(model: Model, names: list[str]) -> dict[str, _Sample]:
    """Return the extremes of the features of each activation, and some of its rows."""
    from compress.graph.capture import observe
    from compress.numerics.ranges import MinMax

    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    extremes = {name: MinMax(axis=-1) for name in names}

    def update(name: str, array: np.ndarray) -> None:
        extremes[name].update(array)
        if len(kept[name]) < ROWS_KEPT // ROWS_OF_A_BATCH:
            rows = array.reshape(-1, array.shape[-1])
            chosen = np.linspace(0, len(rows) - 1, min(ROWS_OF_A_BATCH, len(rows))).astype(int)
            kept[name].append(rows[chosen].astype(np.float32))

    observe(model, names, update, progress="sampling activations")
    return {
        name: _Sample(np.concatenate(rows), extremes[name].low, extremes[name].high)
        for name, rows in kept.items()
    }


def _divide(graph: ir.Graph, value: ir.Value, readers: list[Layer], scales: np.ndarray) -> str:
    """Let the readers see ``value / scales``; say how."""
    import onnx_ir as ir

    from compress.graph.emit import initializer
    from compress.graph.layers import array

    producer = value.producer()
    nodes = {layer.node for layer in readers}
    if producer is not None and producer.op_type == "LayerNormalization" and not value.is_graph_output():
        parameters = [each for each in producer.inputs[1:] if each is not None]
        if set(value.consumers()) <= nodes and all(each.const_value is not None for each in parameters):
            for index, parameter in enumerate(producer.inputs[1:], start=1):
                if parameter is not None:
                    name = f"{parameter.name}.smoothed"
                    producer.replace_input_with(index, initializer(graph, name, array(parameter) / scales))
            return "scales in the normalization"
    inverse = initializer(graph, f"{value.name}.smoothing", (1 / scales).astype(np.float32))
    output = ir.Value(name=f"{value.name}.smoothed", shape=value.shape, type=value.type)
    divide = ir.node("Mul", [value, inverse], outputs=[output], name=f"{value.name}.smooth")
    graph.insert_before(min(nodes, key=graph.index), divide)
    for node in nodes:
        node.replace_input_with(0, output)
    return "scales in a Mul before it"


def _multiply(layer: Layer, scales: np.ndarray) -> None:
    import onnx_ir as ir

    layer.weight.const_value = ir.tensor(layer.array * scales[:, None], name=layer.weight.name)
