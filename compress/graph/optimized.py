"""The graph that ONNX Runtime makes of a model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import onnx
import onnx_ir as ir

from compress.graph import edit
from compress.graph.files import LARGE, is_large, save, understood, without_weights
from compress.graph.node_shapes import of_node
from compress.graph.session import session
from compress.graph.shape_rules.call import Call
from compress.graph.tensor_info import TensorInfo


def as_run(model: ir.Model | str | os.PathLike[str]) -> ir.Model:
    """Return the graph that the runtime makes of a model or a file on this machine.

    Of a large model's float matrices it is shown the shapes alone. What it would make of them as it loads
    them is constant in the graph that is returned, and is computed if somebody looks at it.

    Raises:
        ModelError: the runtime does not take the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        shown = model
        if isinstance(model, ir.Model) and is_large(model):
            shown = without_weights(model, _is_float_matrix)
            # What is written beside the model has to lie where the optimized graph looks for it.
            shown = save(shown, Path(folder, "model.onnx")) if is_large(shown) else shown
        session(shown, threads=1, optimized_to=optimized, runs=False)
        graph = understood(onnx.load(optimized, load_external_data=False), folder)
        graph = ir.external_data.load_to_model(graph)
    if isinstance(model, ir.Model) and shown is not model:
        _give_back(graph, model)
    return graph


def _is_float_matrix(tensor: ir.TensorProtocol) -> bool:
    return len(tensor.shape) == 2 and tensor.nbytes > LARGE and tensor.dtype.is_floating_point()


def _give_back(graph: ir.Model, model: ir.Model) -> None:
    """Make constants of the inputs that are weights of `model`, and of what is computed from constants."""
    weights = model.graph.initializers
    for value in [each for each in graph.graph.inputs if each.name in weights]:
        graph.graph.inputs.remove(value)
        value.const_value = weights[value.name or ""].const_value
        graph.graph.initializers.add(value)
    for node in list(graph.graph):
        tensors = [value.const_value for value in node.inputs if value is not None]
        constants = [tensor for tensor in tensors if tensor is not None]
        if len(constants) < len(node.inputs) or not constants or node.op_type == "DequantizeLinear":
            continue
        version = graph.opset_imports.get(node.domain, 1)
        infos = [TensorInfo(tuple(tensor.shape.numpy()), tensor.dtype) for tensor in constants]
        found = of_node(Call(node, version, infos, [None] * len(infos))).infos
        if len(found) == 1 and found[0] is not None:
            made = ir.val(node.outputs[0].name)
            made.const_value = ir.LazyTensor(
                partial(_computed, node, version, constants), found[0].dtype, ir.Shape(found[0].shape)
            )
            graph.graph.initializers.add(made)
            edit.replace_value(node.outputs[0], made)


def _computed(node: ir.Node, version: int, inputs: Sequence[ir.TensorProtocol]) -> ir.TensorProtocol:
    """Return what a node makes of constants."""
    from onnx.reference import ReferenceEvaluator  # loads hundreds of operators

    evaluator = ReferenceEvaluator(ir.serde.serialize_node(node), opsets={node.domain: version})
    names = evaluator.input_names
    (array,) = evaluator.run(None, dict(zip(names, (each.numpy() for each in inputs), strict=True)))
    return ir.tensor(array)
