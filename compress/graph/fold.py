"""Constant arithmetic, factors and shifts beside a layer, dead code: folded away."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.rewriter.rules import common as rules

from compress.changes import Change, Reason
from compress.errors import ModelError
from compress.graph import edit, facts
from compress.graph.activations import fuse_activations
from compress.graph.affine import fold_affine
from compress.graph.files import weight_bytes
from compress.graph.layers import FLOATS, array
from compress.graph.normalise import compute_constants, drop_identities, grows, strip, widens
from compress.graph.opsets import opset
from compress.graph.shapes import infer
from compress.graph.walks import is_constant

BROADCASTING = 7
"""The operator set since which Add fits shapes to each other as Sum does, from the last axis."""


def fold_and_account(model: ir.Model, *, stripped: bool = False) -> list[Change]:
    """Fold a graph in place; return which operators it has fewer of, and the bytes of the weights.

    Args:
        model: the graph.
        stripped: whether types and shapes of inner values, notes and comments are left out.
    """
    before, bytes_before = Counter(node.op_type for node in model.graph), weight_bytes(model)
    fold(model)
    after = Counter(node.op_type for node in model.graph)
    changes = [
        Change(operator, f"{count - after[operator]} of {count} nodes folded away")
        for operator, count in before.items()
        if after[operator] < count
    ]
    if stripped:
        strip(model)
        changes.append(Change("all values", "types, shapes and notes left out"))
    if changes:
        return [*changes, Change("all weights", "folded", bytes_before, weight_bytes(model))]
    return [Change("all nodes", skipped=Reason.ABSENT)]


def fold(model: ir.Model) -> None:
    """Fold a graph in place; weights and nodes keep their names."""
    known = {node.name for node in model.graph}
    names = {weight: node.name for node in model.graph if (weight := _weight_of(node))}
    compute_constants(model, should_fold=_may_fold, output_size_limit=sys.maxsize)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    rules.dropout_inference_rule.apply_to_model(model)
    if opset(model) >= BROADCASTING:
        for node in list(model.graph):
            _add_in_pairs(node)
    for node in model.graph:
        _pad_inside(node)
    fuse_activations(model)
    shapes = shapes_of(model)
    fold_affine(model, shapes)
    for node in list(model.graph):
        _join_bias(model.graph, node, shapes)
    fold_affine(model, shapes)  # what follows a bias that was joined
    drop_identities(model)
    passes.RemoveUnusedNodesPass()(model)
    for node in model.graph:
        if node.name not in known:  # the rewriter made a new node of an old one
            node.name = names.get(_weight_of(node) or "", node.name)
    edit.name_all(model)


def _may_fold(node: ir.Node) -> bool:
    """Tell whether a node with constant inputs is computed.

    What a ConstantOfShape or arithmetic makes of weights is what the runtime makes of it as it loads them.
    Codes and halves stay what they are, and so does what repeats weights, since a file would grow; but for a
    bias, which exporters write as an Expand of zero, and which must be known to fold what follows its layer.
    """
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") or widens(node):
        return False
    return node.op_type == "ConstantOfShape" or _is_bias(node) or not grows(node)


def _is_bias(node: ir.Node) -> bool:
    """Tell whether layers read what a node makes, and only as their bias."""
    uses = [use for value in node.outputs for use in value.uses()]
    return bool(uses) and all(facts.of(use.node).bias == use.idx for use in uses)


def _add_in_pairs(node: ir.Node) -> None:
    """Make Adds, which have an integer kernel, of a Sum."""
    if node.op_type != "Sum" or node.domain:
        return
    if len(node.inputs) == 1:
        edit.bypass(node)
        return
    adds: list[ir.Node] = []
    for number, value in enumerate(node.inputs[1:], start=2):
        last = number == len(node.inputs)
        before = adds[-1].outputs[0] if adds else node.inputs[0]
        adds.append(ir.node("Add", [before, value], name=node.name if last else f"{node.name}.{number}"))
    edit.replace_node(node, *adds)


def _pad_inside(node: ir.Node) -> None:
    """Let a convolution pad by itself what a Pad puts zeros around."""
    pad = node.inputs[0].producer() if node.op_type == "Conv" and node.inputs[0] is not None else None
    weight = node.inputs[1] if pad is not None else None
    if pad is None or weight is None or not is_constant(weight) or len(pad.inputs) < 2:
        return
    if pad.op_type != "Pad" or pad.domain or node.domain:
        return
    amounts, value, axes = ([*pad.inputs[1:], None, None])[:3]
    if not all(each is None or is_constant(each) for each in (amounts, value, axes)) or amounts is None:
        return
    given, zero = array(amounts).tolist(), value is None or not array(value).any()
    places = range(len(given) // 2) if axes is None else array(axes).tolist()
    rank = array(weight).ndim
    around = [0] * (2 * rank)
    for number, axis in enumerate(places):
        around[axis % rank], around[axis % rank + rank] = given[number], given[number + len(places)]
    inner = [*around[2:rank], *around[rank + 2 :]]
    plain = pad.attributes.get_string("mode", "constant") == "constant" and min(around) >= 0
    if (
        plain
        and zero
        and sum(inner) == sum(around)
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    ):
        own = node.attributes.get_ints("pads", [0] * len(inner))
        node.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, inner, strict=True)])
        edit.set_input(node, 0, pad.inputs[0])


def shapes_of(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Return shapes of values by name, open sizes bound; if some are unknown, those that the file tells."""
    try:
        return infer(model)
    except ModelError:
        values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
        told = {value.name or "": value.shape for value in values if value.shape is not None}
        return {name: tuple(s if isinstance(s, int) else -1 for s in shape) for name, shape in told.items()}


def _join_bias(graph: ir.Graph, node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Make a Gemm of a ``MatMul(x, w)`` of two axes and the Add of a constant vector behind it."""
    if node.op_type != "MatMul" or node.domain:
        return
    data, weight = node.inputs
    if data is None or weight is None or weight.const_value is None or weight.dtype not in FLOATS:
        return
    if len(shapes.get(data.name or "", ())) != 2 or len(weight.const_value.shape) != 2:
        return
    product = node.outputs[0]
    readers = product.consumers()
    if len(readers) != 1 or readers[0].op_type != "Add" or product.is_graph_output():
        return
    add = readers[0]
    bias = next((value for value in add.inputs if value is not product), None)
    if bias is None or bias.const_value is None or add.graph is not graph:
        return
    if bias.const_value.shape.numpy() != weight.const_value.shape.numpy()[1:]:
        return
    gemm = ir.node("Gemm", [*node.inputs, bias], name=node.name)
    edit.replace_node(add, gemm)


def _weight_of(node: ir.Node) -> str | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return weight.name if weight is not None and weight.is_initializer() else None
