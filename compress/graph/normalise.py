"""The one form that every pass expects of a graph."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from compress.errors import about
from compress.graph import edit, facts
from compress.graph.files import FREE_INITIALIZERS
from compress.graph.node_shapes import of_node
from compress.graph.opsets import NEWEST, opset
from compress.graph.shape_rules.call import Call
from compress.graph.tensor_info import SMALL, TensorInfo

SPLIT_INTO_PARTS = 18
"""The operator set since which Split may be told the number of its outputs."""
FEW = 16
"""Numbers up to which a constant may become larger."""


def normalise(model: ir.Model) -> ir.Model:
    """Bring a graph into the form that every pass expects.

    Functions inlined, constants lifted to initializers, linear weights as [K, N] and recurrent ones in
    ONNX's order under the names they had, small constant arithmetic folded, every node named.
    BatchNormalization stays, so that the graph can still be trained; equal weights are not merged. Inputs
    and outputs, the operator set and what the file says of inner values stay as they are.
    """
    model = passes.InlinePass()(model).model
    if (model.ir_version or 0) < FREE_INITIALIZERS:  # they had to be inputs, and nothing could replace them
        passes.RemoveInitializersFromInputsPass()(model)
        model.ir_version = FREE_INITIALIZERS
    lift_constants(model)
    transpose_weights(model.graph)
    names = _recurrent_names(model.graph)
    compute_constants(model, input_size_limit=1024, output_size_limit=65536, should_fold=_may_fold)
    # The limit on outputs holds for what should be folded too, and recurrent weights are larger.
    compute_constants(model, output_size_limit=sys.maxsize, should_fold=_arranges_recurrent_weights)
    lift_constants(model)
    drop_identities(model)
    model = passes.RemoveUnusedNodesPass()(model).model
    for (node, index), name in names.items():
        weight = node.inputs[index]
        if weight is not None and weight.is_initializer() and name not in model.graph.initializers:
            weight.name = name
    edit.name_all(model)
    return passes.RemoveUnusedNodesPass()(model).model


def _may_fold(node: ir.Node) -> bool | None:
    """Tell whether a node with constant inputs is computed; None where they must be small for that."""
    if _arranges_recurrent_weights(node):
        return True
    return False if widens(node) or grows(node) else None


def widens(node: ir.Node) -> bool:
    """Tell whether a node makes weights that are stored in few bits wide: folded, the file would grow."""
    source = node.inputs[0] if node.op_type in ("Cast", "DequantizeLinear") else None
    if source is None or source.const_value is None or source.const_value.size <= FEW:
        return False
    to = ir.DataType(node.attributes.get_int("to", ir.DataType.FLOAT.value))
    return to.bitwidth > source.const_value.dtype.bitwidth


def grows(node: ir.Node) -> bool:
    """Tell whether a file would grow by what a node makes, in the place of constants that it alone reads."""
    spared = {
        value: value.const_value.nbytes
        for value in node.inputs
        if value is not None and value.const_value is not None and not value.is_graph_output()
        if all(reader is node for reader in value.consumers())
    }
    return _bytes_made(node) > sum(spared.values())


def _bytes_made(node: ir.Node) -> float:
    """Return the bytes of what a node makes of constants, but for a few numbers."""
    infos: list[TensorInfo | None] = []
    values: list[np.ndarray | None] = []
    for value in node.inputs:
        held = value.const_value if value is not None else None
        infos.append(None if held is None else TensorInfo(tuple(held.shape.numpy()), held.dtype))
        values.append(None if held is None or held.size > SMALL else held.numpy())
    imports = node.graph.opset_imports if node.graph is not None else {}
    found = of_node(Call(node, imports.get(node.domain, NEWEST), infos, values))
    return sum(info.elements * info.dtype.itemsize for info in found.infos if info and info.elements > FEW)


def compute_constants(model: ir.Model, **settings: Any) -> None:
    """Compute what is constant in place; `settings` are those of the rewriter that does it.

    In the place of sequences, the rewriter writes nodes as operator set 18 has them, whatever set the graph
    has, and it fails on sequences of parts whose sizes it does not know: such graphs stay as they are.
    """
    from onnxscript.optimizer import fold_constants

    sequences = {"SplitToSequence", "ConcatFromSequence"}
    if not sequences.isdisjoint(node.op_type for node in model.graph):
        if opset(model) < SPLIT_INTO_PARTS:
            return
        try:
            fold_constants(model.clone(), **settings)
        except RuntimeError:
            return
    fold_constants(model, **settings)


def lift_constants(model: ir.Model) -> None:
    """Turn Constant nodes into initializers, those in bodies too.

    Raises:
        ModelError: one holds nothing that a Constant can hold.
    """
    with about("a Constant"):
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def strip(model: ir.Model) -> None:
    """Forget what a file need not say: types and shapes of inner values, notes and comments."""
    for graph in model.graphs():
        graph.doc_string = None
        graph.metadata_props.clear()
        ends = {*graph.inputs, *graph.outputs}
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
                if value not in ends:
                    value.type = value.shape = None
        for value in graph.initializers.values():
            value.metadata_props.clear()


def drop_identities(model: ir.Model) -> None:
    """Remove Identity nodes, where no If, Loop or Scan has a body: what enters one may leave it as it is.

    One stays that makes an output of an input, of an initializer or of another output: both keep their names.
    """
    if sum(1 for _ in model.graphs()) > 1:
        return
    for node in [each for each in model.graph if each.op_type == "Identity" and not each.domain]:
        source, result = node.inputs[0], node.outputs[0]
        if source is None:
            continue
        if not result.is_graph_output():
            edit.bypass(node)
        elif source.producer() is not None and not source.is_graph_output():
            source.type, source.shape = result.type, result.shape
            edit.replace_value(result, source)


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
    if weight is None or weight.const_value is None or len(weight.uses()) != 1:
        return False
    if weight.is_graph_input() or weight.is_graph_output():
        return False
    edit.set_initializer(weight, weight.const_value.numpy().transpose(order))
    return True
