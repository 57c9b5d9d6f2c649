"""Constant folding, BatchNormalization into weights, dead code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from compress.model import Model


class Fold(Pass, name="fold"):
    """Compute what is constant, fold BatchNormalization into the weights before it, drop dead code.

    The outputs stay the same to rounding, and runtimes and quantizers have less to do. A folded
    BatchNormalization can no longer be trained: fine-tune first. `int8-static` folds by itself.

    Example: ``variants: {folded: [fold]}``
    """

    def apply(self, model: Model) -> list[Change]:
        """Fold the graph in place."""
        before, bytes_before = _census(model.graph), model.weight_bytes
        fold(model.ir)
        after = _census(model.graph)
        changes = [
            Change(operator, f"{count - after.get(operator, 0)} of {count} nodes folded away")
            for operator, count in before.items()
            if after.get(operator, 0) < count
        ]
        if changes:
            return [*changes, Change("all weights", "folded", bytes_before, model.weight_bytes)]
        return [Change("all nodes", skipped="no constant arithmetic, no BatchNormalization after a weight")]


def fold(model: ir.Model) -> None:
    """Fold a graph in place; weights and nodes keep their names."""
    import onnx_ir.passes.common as passes
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter.rules import common as rules

    from compress.graph.normalise import drop_identities

    known = {node.name for node in model.graph}
    names = {weight: node.name for node in model.graph if (weight := _weight_of(node))}
    fold_constants(model, should_fold=lambda node: False if _copies_shared(node) else None)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for rule in (
        rules.dropout_inference_rule,
        rules.fuse_pad_into_conv_rule,
        rules.fuse_batchnorm_into_conv_rule,
        rules.fuse_batchnorm_into_conv_transpose_rule,
        rules.fuse_batchnorm_into_gemm_rule,
    ):
        rule.apply_to_model(model)
    for node in list(model.graph):
        _join_bias(model.graph, node)
    drop_identities(model)
    passes.RemoveUnusedNodesPass()(model)
    for node in model.graph:
        if node.name not in known:  # the rewriter made a new node of an old one
            node.name = names.get(_weight_of(node) or "", node.name)
    passes.NameFixPass()(model)


def _copies_shared(node: ir.Node) -> bool:
    """Tell whether a node turns a weight that others read as well: a tied embedding would be stored twice."""
    weight = node.inputs[0] if node.op_type == "Transpose" else None
    return weight is not None and weight.is_initializer() and len(weight.uses()) > 1


def _join_bias(graph: ir.Graph, node: ir.Node) -> None:
    """Make a Gemm of a ``MatMul(x, w)`` of two axes and the Add of a constant vector behind it."""
    import onnx_ir as ir

    from compress.graph import edit

    if node.op_type != "MatMul" or node.domain or not _has_axes(node, 2):
        return
    product = node.outputs[0]
    readers = product.consumers()
    if len(readers) != 1 or readers[0].op_type != "Add" or product.is_graph_output():
        return
    add = readers[0]
    bias = next((value for value in add.inputs if value is not product), None)
    if bias is None or bias.const_value is None or add.graph is not graph:
        return
    columns = node.inputs[1].shape[1]  # type: ignore[union-attr, index]
    if tuple(bias.const_value.shape) != (columns,):
        return
    gemm = ir.node("Gemm", [*node.inputs, bias], name=node.name)
    edit.replace_node(add, gemm)


def _has_axes(node: ir.Node, count: int) -> bool:
    """Tell whether every input of a node is known to have `count` axes."""
    return all(
        value is not None and value.shape is not None and len(value.shape) == count for value in node.inputs
    )


def _census(graph: ir.Graph) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _weight_of(node: ir.Node) -> str | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return weight.name if weight is not None and weight.is_initializer() else None
