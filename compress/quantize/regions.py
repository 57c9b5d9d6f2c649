"""Regions of integer arithmetic: which activations of a graph are quantized.

Convolutions run on integers only if their output is quantized as well; linear layers may return floats.
Operators between integer layers that only move, pool or add values join them. A residual network so stays in
integers from end to end, while a transformer's LayerNorm, softmax and residual sums stay in float between
its linear layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from compress.changes import Reason
from compress.graph import facts
from compress.graph.layers import Layer, layers
from compress.graph.walks import after_activation, before_activation

KERNELS = facts.names(lambda operator: operator.on_integers == "multiplies")
"""Layers with an integer kernel in ONNX Runtime's CPU provider."""


@dataclass(slots=True)
class Regions:
    """Which values to quantize, and for whom.

    Attributes:
        kernels: layers to run in integers.
        readers: for each value to quantize, the uses (node, input index) that read the integers.
        final: outputs of the graph that only exist as integers; their dequantized values replace them.
        same_as: values that take scale and zero point of another value, because an operator only moves it.
        skipped: layers that stay in float, with the reason.
    """

    kernels: list[Layer] = field(default_factory=list)
    readers: dict[ir.Value, list[tuple[ir.Node, int]]] = field(default_factory=dict)
    final: set[ir.Value] = field(default_factory=set)
    same_as: dict[ir.Value, ir.Value] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def range_owner(self, value: ir.Value) -> ir.Value:
        """Return the value whose range `value` takes, since operators between the two only move values."""
        while value in self.same_as:
            value = self.same_as[value]
        return value


def find(graph: ir.Graph, chosen: Callable[..., bool]) -> Regions:
    """Find the regions around every layer that `chosen` accepts.

    Args:
        graph: a folded graph.
        chosen: called with the names of a layer's node and weight.
    """
    regions = Regions()
    for layer in layers(graph):
        reason = _obstacle(layer) if chosen(*layer.names) else Reason.LEFT_OUT
        if reason:
            regions.skipped[layer.name] = reason
        else:
            regions.kernels.append(layer)
    integer = {layer.node for layer in regions.kernels}
    quantized: dict[ir.Value | None, None] = dict.fromkeys(
        layer.node.inputs[0] for layer in regions.kernels if layer.node.inputs[0]
    )
    quantized |= dict.fromkeys(
        after_activation(layer.node.outputs[0]) for layer in regions.kernels if layer.node.op_type == "Conv"
    )
    for node in graph:
        if _joins(node, quantized):
            integer.add(node)
            quantized[after_activation(node.outputs[0])] = None
    for node in reversed(graph):
        source = _moved_to_integers(node, integer, quantized)
        if source is not None:
            integer.add(node)
            quantized.setdefault(source)
    for value in filter(None, quantized):
        readers, final = _readers(value, integer)
        if readers or final:
            regions.readers[value] = readers
        if final:
            regions.final.add(value)
    for node in integer:
        if facts.of(node).on_integers == "passes":
            source, moved = node.inputs[0], after_activation(node.outputs[0])
            if source is not None and source in regions.readers:
                regions.same_as[moved] = source
    return regions


def _obstacle(layer: Layer) -> str:
    node = layer.node
    if not layer.is_finite:
        return Reason.NOT_FINITE
    if node.op_type not in KERNELS:
        return Reason.USE.because(f"{node.op_type} has no integer kernel")
    if node.inputs[layer.index] is not layer.weight:
        return Reason.SHARED.because("which reads it in another layout")
    if len(layer.weight.uses()) > 1:
        return Reason.SHARED
    if node.inputs[0] is None or node.inputs[0].const_value is not None:
        return Reason.USE.because("its input is constant")
    if node.op_type == "Gemm" and node.attributes.get_float("beta", 1.0) != 1.0:
        return Reason.USE.because("its bias is scaled")
    return ""


def _joins(node: ir.Node, quantized: dict[ir.Value | None, None]) -> bool:
    """Tell whether an operator between integer layers runs on integers as well."""
    operator = facts.of(node)
    if operator.on_integers not in ("computes", "passes"):
        return False
    data = node.inputs[: operator.operands]
    if any(value is None or value.const_value is not None or value not in quantized for value in data):
        return False
    output = after_activation(node.outputs[0])
    return not output.is_graph_output() and any(facts.of(use.node).on_integers for use in output.uses())


def _moved_to_integers(
    node: ir.Node, integer: set[ir.Node], quantized: dict[ir.Value | None, None]
) -> ir.Value | None:
    """Return the input of an operator that only moves values, and only to integer layers; else None."""
    source, moved = node.inputs[0] if node.inputs else None, node.outputs[0]
    if facts.of(node).on_integers != "passes" or node in integer or len(node.outputs) > 1:
        return None
    if moved not in quantized or moved.is_graph_output() or not set(moved.consumers()) <= integer:
        return None
    return source if source is not None and source.const_value is None else None


def _readers(value: ir.Value, integer: set[ir.Node]) -> tuple[list[tuple[ir.Node, int]], bool]:
    """Return the uses of a value that read its integers, and whether the output of the graph does too.

    All uses read them if an integer kernel computes the value, so that no float exists; otherwise only the
    integer nodes do.
    """
    producer = before_activation(value)
    everyone = producer in integer and producer is not None and facts.of(producer).cost != "product"
    readers = [(use.node, use.idx) for use in value.uses() if everyone or use.node in integer]
    return readers, everyone and value.is_graph_output()
