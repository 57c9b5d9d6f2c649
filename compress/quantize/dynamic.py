"""Dynamic quantization: layers whose inputs become 8-bit integers in ranges that are found at each run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from compress.changes import Change, Reason
from compress.graph import edit
from compress.graph.edit import add_initializer
from compress.graph.facts.record import MICROSOFT
from compress.graph.fold import fold
from compress.graph.layers import Layer, layers
from compress.model import Model
from compress.numerics.affine import Quantized, quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis
from compress.quantize.nodes import gather_dequantize
from compress.quantize.plans import blame
from compress.quantize.weight_only import store_int8_weights

if TYPE_CHECKING:
    from torch import Tensor

STANDARD_GATES = ["Sigmoid", "Tanh", "Tanh"]
"""Default activations of an LSTM, for one direction."""


def int8_dynamic(model: Model, chosen: Callable[..., bool], weight_bits: int) -> list[Change]:
    """Fold a model, let linear layers and LSTMs multiply integers, and store the other weights in 8 bits.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a layer's node and weight.
        weight_bits: bits of the weights, 7 or 8.

    Raises:
        PassError: a weight cannot be quantized; the message names the layer.
    """
    fold(model.ir)
    placed = place(model.graph, find(model.graph, chosen), weight_bits, {})
    others = store_int8_weights(model, chosen, operators="expanded")
    stored = {change.layer for change in others}
    return [change for change in placed if change.action or change.layer not in stored] + others


@dataclass(slots=True)
class Dynamic:
    """The layers of a graph that can run with dynamic quantization.

    Attributes:
        weights: for each weight of linear layers, all layers that read it, embeddings included.
        recurrent: LSTM nodes with input and hidden weights.
        skipped: names of layers that cannot, with the reason.
    """

    weights: list[tuple[Layer, ...]] = field(default_factory=list)
    recurrent: list[tuple[Layer, Layer]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the layers that multiply integers; embeddings multiply nothing."""
        found = [layer.name for group in self.weights for layer in group if layer.in_axis is not None]
        return [*found, *(pair[0].name for pair in self.recurrent)]


def find(graph: ir.Graph, chosen: Callable[..., bool]) -> Dynamic:
    """Find the linear layers and LSTMs that can multiply integers, of those that `chosen` accepts.

    Args:
        graph: a folded graph.
        chosen: called with the names of a layer's node and weight.
    """
    result = Dynamic()
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in layers(graph):
        readers.setdefault(layer.weight, []).append(layer)
    recurrent: dict[ir.Node, list[Layer]] = {}
    for group in readers.values():
        reason: str = Reason.LEFT_OUT
        if not group[0].is_finite:
            reason = Reason.NOT_FINITE
        elif any(chosen(*layer.names) for layer in group):
            reason = next(filter(None, map(_obstacle, group)), "") or _shared_otherwise(group)
        if reason:
            result.skipped.update((layer.name, reason) for layer in group)
        elif group[0].node.op_type == "LSTM":
            recurrent.setdefault(group[0].node, []).append(group[0])
        else:
            result.weights.append(tuple(group))
    for node, pair in recurrent.items():
        if len(pair) == 2:
            result.recurrent.append((pair[0], pair[1]))
        else:
            result.skipped[node.name or ""] = Reason.USE.because("its input or hidden weight stays in float")
    return result


def _obstacle(layer: Layer) -> str:
    node = layer.node
    match node.op_type:
        case "Gather":
            return ""
        case "LSTM":
            return _lstm_obstacle(node)
        case "MatMul" | "Gemm":
            pass
        case _:
            return Reason.USE.because(f"{node.op_type} has no kernel for ranges found at each run")
    if node.inputs[0] is None or node.inputs[0].const_value is not None:
        return Reason.USE.because("its input is constant")
    if layer.index != 1:
        return Reason.USE.because("it is the first operand")
    scaled = any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    if scaled or bool(node.attributes.get_int("transA", 0)):
        return Reason.USE.because("its product is scaled or transposed")
    return ""


def _lstm_obstacle(node: ir.Node) -> str:
    """Return why the runtime's integer kernel, which supports less than the standard, cannot take an LSTM."""
    if bool(node.attributes.get_int("layout", 0)):
        return Reason.USE.because("the integer kernel takes no inputs with the batch first")
    given = node.attributes.get_strings("activations", STANDARD_GATES)
    if any(name != STANDARD_GATES[place % 3] for place, name in enumerate(given)):
        return Reason.USE.because("its activations are not the default ones")
    return ""


def _shared_otherwise(group: Sequence[Layer]) -> str:
    """Return why the weight that `group` reads must stay in float; empty if it need not."""
    if all(layer.in_axis is None for layer in group):
        return Reason.USE.because("an embedding multiplies nothing")
    nodes = {layer.node for layer in group}
    turned = {node for layer in group if layer.in_axis is not None and (node := _transpose(layer))}
    others = [use.node for use in group[0].weight.uses() if use.node not in nodes | turned]
    others += [node for each in turned for node in each.outputs[0].consumers() if node not in nodes]
    if others or any(each.outputs[0].is_graph_output() for each in turned):
        return Reason.SHARED.because("which reads it in float")
    if group[0].node.op_type == "LSTM" and len(group) > 1:
        return Reason.SHARED
    return (
        ""
        if len({layer.out_axis for layer in group}) == 1
        else Reason.SHARED.because("which reads it in another layout")
    )


def _transpose(layer: Layer) -> ir.Node | None:
    """Return the Transpose between a weight and the layer that reads it, if there is one."""
    value = layer.node.inputs[layer.index]
    return value.producer() if value is not None else None


def place(graph: ir.Graph, found: Dynamic, bits: int, known: Mapping[str, Quantized]) -> list[Change]:
    """Quantize what was found, in place, with weights of `bits` and one scale per output channel.

    Weights of linear layers whose name is in `known` get those integers; others are rounded to the nearest.

    Raises:
        PassError: a weight cannot be quantized; the message names the layer.
    """
    rounded: dict[ir.Value, ir.Node] = {}
    changes = [_place_linear(graph, group, bits, rounded, known) for group in found.weights]
    changes += [change for pair in found.recurrent for change in _place_lstm(graph, pair, bits)]
    return changes + [Change(name, skipped=reason) for name, reason in found.skipped.items()]


def _place_linear(
    graph: ir.Graph,
    group: Sequence[Layer],
    bits: int,
    rounded: dict[ir.Value, ir.Node],
    known: Mapping[str, Quantized],
) -> Change:
    """Store one weight as integers and let its readers compute with them."""
    layer = next(each for each in group if each.in_axis is not None)
    name = layer.weight.name or ""
    quantized = known.get(name) or _nearest(layer, torch.from_numpy(layer.array.copy()), bits)
    change = _change(layer, torch.from_numpy(layer.array.copy()), quantized)
    is_table = any(each.in_axis is None for each in group)
    for each in group:
        if each.in_axis is None:
            gather_dequantize(each.node, each.weight, quantized)
        else:
            weight = _integers(graph, name, quantized, is_table=is_table)
            _multiply(graph, each, weight, quantized, rounded)
    return change


def _integers(graph: ir.Graph, name: str, quantized: Quantized, *, is_table: bool) -> ir.Value:
    """Store a linear weight as [inputs, outputs]; one that is an embedding table too keeps its layout."""
    values = quantized.values.numpy()
    rows = quantized.granularity == PerAxis(0)
    if not (rows and is_table):
        return add_initializer(graph, f"{name}.quantized", values.T if rows else values)
    table = add_initializer(graph, f"{name}.quantized", values)
    for reader in table.consumers():
        if reader.op_type == "Transpose":
            return reader.outputs[0]
    turned = ir.node("Transpose", [table], {"perm": [1, 0]}, name=f"{name}.turned")
    edit.insert_first(graph, turned)  # the runtime computes it as the model is loaded
    return turned.outputs[0]


def _multiply(
    graph: ir.Graph, layer: Layer, weight: ir.Value, quantized: Quantized, rounded: dict[ir.Value, ir.Node]
) -> None:
    """Replace a linear layer by the nodes that the runtime fuses into one kernel.

    ``MatMulInteger(x, weight) * (scale of x * scale of weight) + bias``
    """
    node, name = layer.node, layer.name
    value = node.inputs[0]
    assert value is not None
    if value not in rounded:
        rounded[value] = _round(graph, value)
    integers, step, zero_point = rounded[value].outputs
    steps = add_initializer(graph, f"{layer.weight.name}.scale", quantized.scale.numpy())
    product = ir.node("MatMulInteger", [integers, weight, zero_point], name=f"{name}.integer")
    sums = ir.node("Cast", product.outputs, {"to": ir.DataType.FLOAT}, name=f"{name}.cast")
    scale = ir.node("Mul", [step, steps], name=f"{name}.scale")
    floats = ir.node("Mul", [sums.outputs[0], scale.outputs[0]], name=name)
    new = [product, sums, scale, floats]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        new.append(ir.node("Add", [floats.outputs[0], node.inputs[2]], name=f"{name}.bias"))
    edit.replace_node(node, *new)


def _round(graph: ir.Graph, value: ir.Value) -> ir.Node:
    """Add the node that quantizes a value for all layers that read it."""
    node = ir.node("DynamicQuantizeLinear", [value], num_outputs=3, name=f"{value.name}.quantize")
    edit.insert_after(value, node)
    return node


def _place_lstm(graph: ir.Graph, pair: tuple[Layer, Layer], bits: int) -> list[Change]:
    """Replace an LSTM by the runtime's DynamicQuantizeLSTM; weights become [directions, inputs, 4 hidden].

    Source: ONNX Runtime's ContribOperators.md, com.microsoft.DynamicQuantizeLSTM.
    """
    node = pair[0].node
    inputs: list[ir.Value | None] = [*node.inputs, *[None] * (8 - len(node.inputs))]
    changes = []
    for layer in pair:
        name = layer.weight.name or ""
        weight = torch.from_numpy(layer.array.copy())
        rows = weight.flatten(0, 1)  # one scale for each gate's channel of each direction
        quantized = _nearest(layer, rows, bits, axis=0)
        values = quantized.values.reshape(weight.shape).transpose(1, 2)
        scales = quantized.scale.reshape(weight.shape[:2]).numpy()
        inputs[layer.index] = add_initializer(graph, f"{name}.quantized", values.numpy())
        inputs.append(add_initializer(graph, f"{name}.scale", scales))
        inputs.append(add_initializer(graph, f"{name}.zero_point", np.zeros(scales.shape, np.int8)))
        changes.append(_change(layer, rows, quantized))
    attributes = {key: value for key, value in node.attributes.items() if key != "layout"}
    new = ir.node(
        "DynamicQuantizeLSTM",
        inputs,
        attributes,
        domain=MICROSOFT,
        num_outputs=len(node.outputs),
        name=node.name,
    )
    edit.replace_node(node, new)
    return changes


def _nearest(layer: Layer, weight: Tensor, bits: int, axis: int | None = None) -> Quantized:
    integers = IntegerFormat(bits, PerAxis(layer.out_axis if axis is None else axis), narrow=True)
    try:
        return quantize(weight, integers)
    except ValueError as error:
        raise blame(layer, error) from error


def _change(layer: Layer, weight: Tensor, quantized: Quantized) -> Change:
    story = f"8-bit activations in the range of each run, {quantized.bits}-bit weights per channel"
    before = layer.nbytes
    return Change(layer.name, story, before, quantized.bytes, quantized.relative_error(weight))
