"""What a pass leaves behind: a graph that is valid ONNX, with the interface of the one it was given."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from compress.errors import PassError
from compress.graph import defaults, files
from compress.graph.edit import name_all
from compress.graph.opsets import opset


def settle(before: ir.Model, after: ir.Model) -> None:
    """Finish a graph that a pass has changed, in place.

    Inputs get their defaults back. What the file said of inner values stays where it is still true, and
    nothing is added to it. The format's version rises only as far as the content demands.

    Raises:
        PassError: the graph is not valid, although the one before was.
    """
    defaults.release(after)
    name_all(after)  # a tensor that is converted for each of two readers gives its name to both
    _keep_descriptions(before, after)
    after.ir_version = max(before.ir_version or 0, after.ir_version or 0, files.least_ir_version(after))
    if opset(after) > opset(before):
        imports = [onnx.helper.make_opsetid("", opset(after))]
        after.ir_version = max(after.ir_version, onnx.helper.find_min_ir_version_for(imports))
    fault = files.fault(after)
    if fault and not files.fault(before):
        raise PassError(f"the result would not be valid ONNX: {fault}")


def _keep_descriptions(before: ir.Model, after: ir.Model) -> None:
    """Keep the types and shapes that the file gave of inner values, as they are now."""
    described = {value.name for value in _inner(before) if value.type is not None}
    missing = [value for value in after.graph.outputs if value.shape is None]
    for value in _inner(after):
        if value.name not in described:
            value.type = value.shape = None
    if not described and not missing:
        return
    found = _inferred(after)
    for value in (*_inner(after), *missing):
        known = found.get(value.name or "")
        if known is not None and value.type is not None and not _agrees(value, known):
            value.type, value.shape = known.type, known.shape


def _inner(model: ir.Model) -> list[ir.Value]:
    """Return what the nodes of the graph make, but for the graph's outputs."""
    return [value for node in model.graph for value in node.outputs if not value.is_graph_output()]


def _inferred(model: ir.Model) -> dict[str, ir.Value]:
    """Return what ONNX's own inference says of the values of a graph."""
    bare = files.without_weights(model)
    for value in _inner(bare):
        value.type = value.shape = None
    try:
        proto = onnx.shape_inference.infer_shapes(files.to_proto(bare), data_prop=True)
    except onnx.shape_inference.InferenceError:
        return {}
    graph = files.understood(proto).graph
    return {value.name or "": value for node in graph for value in node.outputs if value.type is not None}


def _agrees(value: ir.Value, known: ir.Value) -> bool:
    """Tell whether what is said of a value goes together with what is known of it."""
    if value.type != known.type or value.shape is None:
        return False
    if known.shape is None:
        return True
    return len(value.shape) == len(known.shape) and all(
        one == other or not (isinstance(one, int) and isinstance(other, int))
        for one, other in zip(value.shape, known.shape, strict=True)
    )
