"""How much noise 8-bit arithmetic would add at each layer, each measured on its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from compress.graph import edit
from compress.graph.layers import Layer, layers
from compress.numerics.affine import quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis

if TYPE_CHECKING:
    from compress.data import Feeds
    from compress.model import Model


def local_noise(
    model: Model, names: Sequence[str], batches: Iterable[Feeds], bits: int = 8
) -> dict[str, float]:
    """Return noise power over signal power of each layer's output when it alone runs in integers.

    A probe of the graph runs every layer twice: in float, and with its input rounded to 8 bits (one
    range for the whole tensor, that of the batch) and its weight to `bits` per output channel. Only
    the two sums of squares leave the runtime.

    Args:
        model: a folded float model; it is not changed.
        names: nodes of layers with a weight of their own.
        batches: feeds to measure on.
        bits: of the weights.
    """
    probe = model.copy()
    measured: dict[str, list[Layer]] = {name: [] for name in names}
    for layer in layers(probe.graph):
        if layer.name in measured:
            measured[layer.name].append(layer)  # a recurrent one has two weights
    del probe.graph.outputs[:]
    for weights in measured.values():
        probe.graph.outputs.extend(_probe(probe.graph, weights, bits))
    sums = np.zeros((len(measured), 2))
    for feeds in batches:
        sums += np.array([float(value) for value in probe.run(feeds)]).reshape(-1, 2)
    ratios = sums[:, 0] / np.maximum(sums[:, 1], np.finfo(np.float64).tiny)
    return {name: float(ratio) for name, ratio in zip(measured, ratios, strict=True)}


def _probe(graph: ir.Graph, weights: Sequence[Layer], bits: int) -> list[ir.Value]:
    """Add a rounded twin of the layer with these weights; return the values of noise and signal."""
    node = weights[0].node
    rounded = ir.node("DynamicQuantizeLinear", [node.inputs[0]], num_outputs=3, name=f"{node.name}.probe.q")
    restored = ir.node("DequantizeLinear", rounded.outputs, name=f"{node.name}.probe.dq")
    inputs = [restored.outputs[0], *node.inputs[1:]]
    for layer in weights:
        integers = IntegerFormat(bits, PerAxis(layer.out_axis), narrow=True)
        weight = quantize(torch.from_numpy(layer.array.copy()), integers)
        content = weight.dequantize()
        if node.inputs[layer.index] is not layer.weight:  # a Transpose stands between them
            content = content.T
        inputs[layer.index] = edit.add_initializer(graph, f"{layer.weight.name}.probe", content.numpy())
    place = next(number for number, value in enumerate(node.outputs) if value.name)
    twin = ir.node(
        node.op_type,
        inputs,
        dict(node.attributes),
        num_outputs=len(node.outputs),
        name=f"{node.name}.probe",
    )
    wanted = node.outputs[place]
    difference = ir.node("Sub", [twin.outputs[place], wanted], name=f"{node.name}.probe.noise")
    sums = [
        ir.node("ReduceSumSquare", [value], {"keepdims": 0}, name=f"{node.name}.probe.sum{number}")
        for number, value in enumerate((difference.outputs[0], wanted))
    ]
    edit.insert_after(wanted, rounded, restored, twin, difference, *sums)
    for number, each in enumerate(sums):
        each.outputs[0].name = f"{node.name}.probe.{number}"
        each.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        each.outputs[0].shape = ir.Shape(())
    return [each.outputs[0] for each in sums]
