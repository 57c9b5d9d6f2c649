"""Regions of integer arithmetic: which activations of a graph are quantized.

Convolutions run on integers only if their output is quantized as well; linear layers may return floats.
Operators between integer layers that only move, pool or add values join them. A residual network so stays in
integers from end to end, while a transformer's LayerNorm, softmax and residual sums stay in float between
its linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from compress.changes import Reason
from compress.graph import edit, facts
from compress.graph.affine import normalization
from compress.graph.fold import shapes_of
from compress.graph.layers import Layer, array, layers
from compress.graph.optimized import as_run
from compress.graph.walks import after_activation, before_activation, codes_behind, only_reader
from compress.model import Model

KERNELS = facts.names(lambda operator: operator.on_integers == "multiplies")
"""Layers with an integer kernel in ONNX Runtime's CPU provider."""


@dataclass(slots=True)
class Regions:
    """Which values to quantize, and for whom.

    Attributes:
        kernels: layers to run in integers.
        nodes: all nodes to run in integers, those of the kernels among them.
        readers: for each value to quantize, the uses (node, input index) that read the integers.
        final: outputs of the graph that only exist as integers; their dequantized values replace them.
        same_as: values that take scale and zero point of another value, because an operator only moves it.
        joined: values that a Concat reads, with its output; codes of one scale are copied as they are.
        constants: operands of one number (node, input index) that are read as codes too.
        rescaled: multiplications by one positive number, which a dequantizer's scale takes over.
        skipped: layers that stay in float, with the reason.
    """

    kernels: list[Layer] = field(default_factory=list)
    nodes: dict[ir.Node, None] = field(default_factory=dict)
    readers: dict[ir.Value, list[tuple[ir.Node, int]]] = field(default_factory=dict)
    final: set[ir.Value] = field(default_factory=set)
    same_as: dict[ir.Value, ir.Value] = field(default_factory=dict)
    joined: dict[ir.Value, ir.Value] = field(default_factory=dict)
    constants: list[tuple[ir.Node, int]] = field(default_factory=list)
    rescaled: list[ir.Node] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def range_owner(self, value: ir.Value) -> ir.Value:
        """Return the value whose range `value` takes, since operators between the two only move values."""
        while value in self.same_as:
            value = self.same_as[value]
        return value


def find(graph: ir.Graph, chosen: Callable[..., bool], floats: Collection[str] = ()) -> Regions:
    """Find the regions around every layer that `chosen` accepts.

    Args:
        graph: a folded graph.
        chosen: called with the names of a layer's node and weight.
        floats: names of nodes that the runtime computes in float all the same.
    """
    regions = Regions()
    _find_kernels(regions, graph, chosen, floats)
    regions.nodes |= dict.fromkeys(layer.node for layer in regions.kernels)
    quantized: dict[ir.Value | None, None] = dict.fromkeys(
        layer.node.inputs[0] for layer in regions.kernels if layer.node.inputs[0]
    )
    quantized |= dict.fromkeys(
        after_activation(layer.node.outputs[0]) for layer in regions.kernels if _puts_codes_out(layer.node)
    )
    others = [node for node in graph if node.name not in floats]
    for node in others:
        if _rescales(node, quantized):
            regions.rescaled.append(node)
        elif not _joins(node, quantized, regions.nodes):
            continue
        regions.nodes[node] = None
        quantized |= dict.fromkeys([*_data(node), *map(_put_out, node.outputs)])
    for node in reversed(others):
        source = _moved_to_integers(node, regions.nodes, quantized)
        if source is not None:
            regions.nodes[node] = None
            quantized.setdefault(source)
    decoded = {node.outputs[0] for node in regions.rescaled}
    for value in filter(None, quantized):
        readers, final = ([], False) if value in decoded else _readers(value, regions.nodes)
        if readers or final:
            regions.readers[value] = readers
        if final:
            regions.final.add(value)
    _share_ranges(regions)
    return regions


def _find_kernels(
    regions: Regions, graph: ir.Graph, chosen: Callable[..., bool], floats: Collection[str]
) -> None:
    """Find the layers to run in integers; a weight that several read is one for all or for none of them."""
    found: dict[ir.Value, list[Layer]] = {}
    for layer in layers(graph):
        reason = _obstacle(layer) if chosen(*layer.names) else Reason.LEFT_OUT
        if layer.name in floats:
            reason = Reason.USE.because("ONNX Runtime computes it in float")
        if reason:
            regions.skipped[layer.name] = reason
        else:
            found.setdefault(layer.weight, []).append(layer)
    for weight, readers in found.items():
        if len(weight.uses()) == len(readers) and len({each.out_axis for each in readers}) == 1:
            regions.kernels += readers
        else:
            reason = Reason.SHARED.because("which stays in float, or reads it in another layout")
            regions.skipped.update((each.name, reason) for each in readers)


def _share_ranges(regions: Regions) -> None:
    """Note which values take the range of another one."""
    for node in regions.nodes:
        operator, source, moved = facts.of(node), node.inputs[0], _put_out(node.outputs[0])
        if operator.on_integers == "passes" and source is not None and source in regions.readers:
            if moved is not node.outputs[0]:
                regions.same_as[source] = moved  # what the activation cuts off can be cut off before
            else:
                regions.same_as.update(dict.fromkeys(map(_put_out, node.outputs), source))
        elif operator.name == "Concat":
            regions.joined.update((value, moved) for value in _data(node) if value in regions.readers)
    settled = {*(layer.node for layer in regions.kernels), *regions.rescaled}
    for node in regions.nodes:
        regions.constants += (
            []
            if node in settled
            else [
                (node, index)
                for index, value in enumerate(node.inputs[: facts.of(node).operands])
                if value is not None and value.const_value is not None
            ]
        )


def _data(node: ir.Node) -> list[ir.Value]:
    """Return the data operands of a node that are not constant."""
    operands = node.inputs[: facts.of(node).operands]
    return [value for value in operands if value is not None and value.const_value is None]


def _put_out(value: ir.Value) -> ir.Value:
    """Return what is quantized of a node's output: the output of the activation behind it, if it can be.

    An operator that only moves values has one range for both sides. It takes an activation in only if nothing
    else reads its input, nor gives it its range.
    """
    node = value.producer()
    if node is None or facts.of(node).on_integers != "passes":
        return after_activation(value)
    source = node.inputs[0]
    before = None if source is None else source.producer()
    alone = source is not None and only_reader(source) is node and len(node.outputs) == 1
    moved = before is None or facts.of(before).on_integers == "passes" or facts.of(before).cuts
    return after_activation(value) if alone and not moved else value


def _puts_codes_out(node: ir.Node) -> bool:
    """Tell whether an integer kernel takes a node's place only if its output is quantized.

    A layer in front of an activation, which its quantizer takes in, is one; of other layers, convolutions.
    """
    activated = after_activation(node.outputs[0]) is not node.outputs[0]
    return facts.of(node).cost != "product" or activated


def _obstacle(layer: Layer) -> str:
    node = layer.node
    if not layer.is_finite:
        return Reason.NOT_FINITE
    if node.op_type not in KERNELS:
        return Reason.USE.because(f"{node.op_type} has no integer kernel")
    if node.inputs[layer.index] is not layer.weight:
        return Reason.SHARED.because("which reads it in another layout")
    if node.inputs[0] is None or node.inputs[0].const_value is not None:
        return Reason.USE.because("its input is constant")
    if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return Reason.USE.because("its product or bias is scaled")
    return ""


def _joins(node: ir.Node, quantized: dict[ir.Value | None, None], integer: Mapping[ir.Node, None]) -> bool:
    """Tell whether an operator between integer layers runs on integers as well.

    Of the operands of a sum, a product or a Concat, some may be float values or numbers if others exist as
    integers only.
    """
    operator = facts.of(node)
    if operator.on_integers not in ("computes", "passes"):
        return False
    data = node.inputs[: operator.operands]
    if not data or any(
        value is None or (value.const_value is not None and not _is_number(value)) for value in data
    ):
        return False
    several = operator.on_integers == "computes" and operator.operands != 1
    mixed = several and any(_is_made(value, integer) for value in data if value in quantized)
    if not mixed and not all(value in quantized for value in data):
        return False
    outputs = [_put_out(output) for output in node.outputs]
    read = any(facts.of(use.node).on_integers for output in outputs for use in output.uses())
    return read and not any(output.is_graph_output() for output in outputs)


def _rescales(node: ir.Node, quantized: dict[ir.Value | None, None]) -> bool:
    """Tell whether a node multiplies codes by one positive number."""
    if node.op_type != "Mul" or node.inputs[0] not in quantized or node.outputs[0].is_graph_output():
        return False
    factor = node.inputs[1]
    if factor is None or not _is_number(factor) or not float(array(factor).reshape(-1)[0]) > 0:
        return False
    return any(facts.of(reader).on_integers == "computes" for reader in node.outputs[0].consumers())


def _is_number(value: ir.Value) -> bool:
    """Tell whether a value is one constant number."""
    return value.const_value is not None and value.const_value.size == 1 and value.dtype == ir.DataType.FLOAT


def _moved_to_integers(
    node: ir.Node, integer: Mapping[ir.Node, None], quantized: dict[ir.Value | None, None]
) -> ir.Value | None:
    """Return the input of an operator that only moves values, and only to integer layers; else None."""
    source = node.inputs[0] if node.inputs else None
    if facts.of(node).on_integers != "passes" or node in integer:
        return None
    for moved in node.outputs:
        if moved not in quantized or moved.is_graph_output() or not set(moved.consumers()) <= integer.keys():
            return None
    return source if source is not None and source.const_value is None else None


def _is_made(value: ir.Value | None, integer: Mapping[ir.Node, None]) -> bool:
    """Tell whether an integer kernel computes a value, so that no float exists."""
    producer = before_activation(value) if value is not None else None
    return producer is not None and producer in integer and _puts_codes_out(producer)


def _readers(value: ir.Value, integer: Mapping[ir.Node, None]) -> tuple[list[tuple[ir.Node, int]], bool]:
    """Return the uses of a value that read its integers, and whether the output of the graph does too.

    All uses read them if an integer kernel computes the value, so that no float exists; otherwise only the
    integer nodes do.
    """
    everyone = _is_made(value, integer)
    readers = [(use.node, use.idx) for use in value.uses() if everyone or use.node in integer]
    return readers, everyone and value.is_graph_output()


def sides(regions: Regions) -> dict[ir.Value, frozenset[str]]:
    """Return the layers that every quantized value lies between, by name: it has codes if one of them has.

    These are the next ones before and behind it, with at most one node of several operands on the way.
    """
    kernels = {layer.node: layer.name for layer in regions.kernels}

    def joins(node: ir.Node) -> int | None:
        inside = node in regions.nodes or facts.of(node).cuts
        return int(len(_data(node)) > 1) if inside else None

    def before(value: ir.Value, left: int) -> set[str]:
        node = value.producer()
        if node is None or node in kernels:
            return {kernels[node]} if node is not None and _puts_codes_out(node) else set()
        several = joins(node)
        if several is None or several > left:
            return set()
        return {name for each in _data(node) for name in before(each, left - several)}

    def behind(value: ir.Value, left: int) -> set[str]:
        names: set[str] = set()
        for node in value.consumers():
            several = joins(node)
            if node in kernels:
                names.add(kernels[node])
            elif several is not None and several <= left:
                names |= {name for each in node.outputs for name in behind(each, left - several)}
        return names

    return {value: frozenset(before(value, 1) | behind(value, 1)) for value in regions.readers}


def cut_at(value: ir.Value) -> tuple[float, float]:
    """Return the constant bounds at which the activation that makes a value cuts it off; infinite without."""
    node = value.producer()
    if node is None or not facts.of(node).cuts:
        return -math.inf, math.inf
    if node.op_type == "Relu":
        return 0.0, math.inf
    ends = []
    for index, name, absent in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = node.inputs[index] if index < len(node.inputs) else None
        constant = given is not None and given.const_value is not None
        ends.append(float(array(given)) if constant else node.attributes.get_float(name, absent))  # type: ignore[arg-type]
    return ends[0], ends[1]


def computed_in_float(model: ir.Model, regions: Regions) -> set[str]:
    """Return the names of the nodes of regions that the runtime computes in float between their Q/DQ pairs.

    Where an integer kernel takes the place of a layer, no node of the optimized graph dequantizes its weight;
    where one takes the place of another operator, none quantizes its output.

    Args:
        model: the model with Q/DQ pairs around the regions.
        regions: what was to run in integers.
    """
    run = as_run(model)
    decoded = {
        node.inputs[0].name for node in run.graph if node.op_type == "DequantizeLinear" and node.inputs[0]
    }
    coded = {node.outputs[0].name for node in run.graph if node.op_type == "QuantizeLinear"}
    found = set()
    for node in regions.nodes:
        for value in node.inputs:
            stored = codes_behind(value)
            if stored is not None and stored.name in decoded:
                found.add(node.name or "")
        for value in node.outputs:
            for reader in _put_out(value).consumers():
                if reader.op_type == "QuantizeLinear" and reader.outputs[0].name in coded:
                    found.add(node.name or "")
    return found


def prepare(model: Model, chosen: Callable[..., bool]) -> None:
    """Rewrite, in place, what has no integer kernel beside the convolutions that `chosen` accepts.

    ``HardSwish(x) = x HardSigmoid(x)`` and ``HardSigmoid(x) = alpha clip(x + beta / alpha, 0, 1 / alpha)``: a
    sum that a quantizer cuts off, and a number that a dequantizer's scale takes over. A BatchNormalization
    before a convolution becomes a depthwise one. Products stay apart from the sums behind them.
    """
    convolutions = [each for each in find(model.graph, chosen).kernels if each.node.op_type == "Conv"]
    kernels = {layer.node for layer in convolutions}
    shapes = shapes_of(model.ir)
    for node in list(model.graph):
        if node.op_type == "BatchNormalization":
            readers = after_activation(node.outputs[0]).consumers()
            rank = next((each.array.ndim for each in convolutions if each.node in readers), 0)
            _as_convolution(node, rank)
            continue
        if node.op_type == "MatMul":
            _keep_from_sum(node, len(shapes.get(node.outputs[0].name or "", ())))
        source = node.inputs[0] if node.inputs else None
        if source is None or source.producer() not in kernels or node.domain:
            continue
        if node.op_type == "HardSwish":
            gate = ir.node("HardSigmoid", [source], {"alpha": 1 / 6, "beta": 0.5}, name=f"{node.name}.gate")
            edit.replace_node(node, gate, ir.node("Mul", [source, gate.outputs[0]], name=node.name))
            node = gate
        if node.op_type == "HardSigmoid":
            _cut_off(node)


def _keep_from_sum(node: ir.Node, rank: int) -> None:
    """Rewrite a product so that the runtime does not join it and the Add behind it to a Gemm in float.

    A product of matrices becomes a Gemm itself, and a vector added to a larger one gets as many axes.
    """
    add, weight = only_reader(node.outputs[0]), node.inputs[1]
    if add is None or add.op_type != "Add" or weight is None or weight.const_value is None:
        return
    if rank == len(weight.const_value.shape) == 2:
        edit.replace_node(node, ir.node("Gemm", node.inputs, name=node.name))
    for index, value in enumerate(add.inputs):
        if (
            rank > 2
            and value is not None
            and value.const_value is not None
            and len(value.const_value.shape) == 1
        ):
            wide = array(value).reshape(*[1] * (rank - 1), -1)
            edit.set_input(add, index, edit.add_initializer(edit.graph_of(add), f"{value.name}.wide", wide))


def _as_convolution(node: ir.Node, rank: int) -> None:
    """Put a depthwise convolution in the place of a BatchNormalization of images with `rank` axes."""
    effect = normalization(node)
    if rank < 3 or effect is None:
        return
    factor, shift = (each.astype(np.float32) for each in effect)
    graph, name, window = edit.graph_of(node), node.name or "", [1] * (rank - 2)
    weight = edit.add_initializer(graph, f"{name}.weight", factor.reshape(-1, 1, *window))
    bias = edit.add_initializer(graph, f"{name}.bias", shift)
    attributes: dict[str, int | list[int]] = {"group": len(factor), "kernel_shape": window}
    edit.replace_node(node, ir.node("Conv", [node.inputs[0], weight, bias], attributes, name=name))


def _cut_off(node: ir.Node) -> None:
    """Put a sum, a Clip and a product with a number in the place of a HardSigmoid."""
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    if alpha <= 0 or node.inputs[0] is None or node.inputs[0].dtype != ir.DataType.FLOAT:
        return
    graph, name = edit.graph_of(node), node.name or ""

    def number(what: str, content: float) -> ir.Value:
        return edit.add_initializer(graph, f"{name}.{what}", np.asarray(content, np.float32))

    total = ir.node("Add", [node.inputs[0], number("shift", beta / alpha)], name=f"{name}.sum")
    ends = number("least", 0), number("most", 1 / alpha)
    cut = ir.node("Clip", [total.outputs[0], *ends], name=f"{name}.cut")
    edit.replace_node(node, total, cut, ir.node("Mul", [cut.outputs[0], number("factor", alpha)], name=name))
