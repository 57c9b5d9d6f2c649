"""The one form that every pass expects of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import onnx_ir.passes.common as passes

from compress.graph import edit, facts
from compress.graph.shapes import symbol

OPSET = 21
"""The opset everything is brought to: the first with 4-bit and blocked DequantizeLinear."""
IR_VERSION = 10
"""The least version of the file format: the first with 4-bit integers."""


def normalise(model: ir.Model) -> ir.Model:
    """Bring a graph into the form that every pass expects.

    Opset 21 where the converter can, functions inlined, constants lifted to initializers, linear
    weights as [K, N] and recurrent ones in ONNX's order under the names they had, small constant
    arithmetic folded, open sizes marked as such, every node named, torch's notes on where it came from
    left out. BatchNormalization stays, so that the graph can still be trained; equal weights are not merged.
    """
    from onnxscript.optimizer import fold_constants

    model = passes.InlinePass()(model).model
    model = _to_opset(model)
    model.ir_version = max(model.ir_version or 0, IR_VERSION)
    lift = passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    lift(model)
    passes.RemoveInitializersFromInputsPass()(model)
    transpose_weights(model.graph)
    names = _recurrent_names(model.graph)
    fold_constants(
        model,
        input_size_limit=1024,
        output_size_limit=65536,
        should_fold=lambda node: True if _arranges_recurrent_weights(node) else None,
    )
    lift(model)
    drop_identities(model)
    model = passes.RemoveUnusedNodesPass()(model).model
    for (node, index), name in names.items():
        weight = node.inputs[index]
        if weight is not None and weight.is_initializer() and name not in model.graph.initializers:
            weight.name = name
    passes.NameFixPass()(model)
    _open_sizes(model.graph)
    _drop_notes(model.graph)
    return passes.RemoveUnusedNodesPass()(model).model


def _open_sizes(graph: ir.Graph) -> None:
    """Mark sizes as open that exporters write as -1 or as ``?``."""
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(
                dim if isinstance(dim, int) and dim >= 0 else symbol(dim) for dim in value.shape
            )


def _drop_notes(graph: ir.Graph) -> None:
    """Forget torch's stack traces and module names: a tenth of a small file, and paths of a machine."""
    for notes in (graph.metadata_props, *(node.metadata_props for node in graph.all_nodes())):
        for key in [key for key in notes if key == "namespace" or key.startswith("pkg.torch.")]:
            del notes[key]


def drop_identities(model: ir.Model) -> None:
    """Remove Identity nodes, where no If, Loop or Scan has a body: what enters one may leave it as it is."""
    if sum(1 for _ in model.graphs()) == 1:
        passes.IdentityEliminationPass()(model)


def _arranges_recurrent_weights(node: ir.Node) -> bool:
    """Tell whether all that a node makes ends up, at most rearranged, in recurrent operators."""
    if not facts.of(node).rearranges:
        return False
    readers = [reader for output in node.outputs for reader in output.consumers()]
    return bool(readers) and all(
        facts.of(reader).is_recurrent or _arranges_recurrent_weights(reader) for reader in readers
    )


def _recurrent_names(graph: ir.Graph) -> dict[tuple[ir.Node, int], str]:
    """Return the name of the first parameter behind every rearranged input of a recurrent operator."""
    names: dict[tuple[ir.Node, int], str] = {}
    for node in graph:
        for index in (1, 2, 3) if facts.of(node).is_recurrent else ():
            value = node.inputs[index] if index < len(node.inputs) else None
            while value is not None and (producer := value.producer()) is not None:
                value = producer.inputs[0] if facts.of(producer).rearranges else None
            if value is not None and value.is_initializer() and value is not node.inputs[index]:
                names[node, index] = value.name or ""
    return names


def _to_opset(model: ir.Model) -> ir.Model:
    """Convert to `OPSET` where ONNX's converter can; a graph it cannot convert stays as it is."""
    import onnx

    if model.opset_imports.get("", OPSET) >= OPSET:
        return model
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), OPSET))
    except (RuntimeError, ValueError, onnx.checker.ValidationError):
        return model
    for name, value in converted.graph.initializers.items():
        # External weights do not know their folder any more.
        if (tensor := model.graph.initializers.get_tensor(name)) is not None:
            edit.set_initializer(value, tensor)
    return converted


def transpose_weights(graph: ir.Graph) -> None:
    """Store linear weights as [K, N]: ``Gemm(transB=1)`` and ``MatMul(x, Transpose(w))`` lose the transpose.

    A weight that something else reads as well (a tied embedding) keeps the one it has.
    """
    for node in list(graph):
        if node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0)):
            if _turn(node.inputs[1], (1, 0)):
                node.attributes.pop("transB")
        elif node.op_type == "Transpose":
            weight = node.inputs[0]
            if node.outputs[0].is_graph_output():
                continue
            if weight is not None and _turn(weight, node.attributes.get_ints("perm", None)):
                edit.bypass(node)


def _turn(weight: ir.Value | None, order: Sequence[int] | None) -> bool:
    """Transpose an initializer that has one reader; tell whether it was one."""
    if weight is None or weight.const_value is None or len(weight.uses()) != 1 or weight.is_graph_output():
        return False
    edit.set_initializer(weight, weight.const_value.numpy().transpose(order))
    return True
