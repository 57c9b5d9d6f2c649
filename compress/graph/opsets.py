"""A newer operator set for a graph, where a pass needs one."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from compress.errors import ModelError, first_line
from compress.graph import edit, files

NEWEST = 21
"""The operator set that exported torch modules have: the first with 4-bit and blocked DequantizeLinear."""
_OLD_RESIZE = 11
"""Before it, Upsample and Resize had one way to map coordinates, which is not the later default."""
_OLD_HARDMAX = 13
"""Before it, Hardmax took all axes from its own on for one."""


def opset(model: ir.Model) -> int:
    """Return the version of ONNX's own operators that a model uses; 0 if it uses none."""
    return model.opset_imports.get("", 0) or 0


def raised(model: ir.Model, version: int) -> ir.Model:
    """Return the model at `version` of ONNX's operators; itself if it is there, or beyond.

    Raises:
        ModelError: ONNX's converter cannot raise it.
    """
    before = opset(model)
    if not 0 < before < version:
        return model
    proto = files.to_proto(files.without_weights(model))
    try:
        converted = files.understood(onnx.version_converter.convert_version(proto, version))
    except (
        RuntimeError,
        ValueError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise ModelError(
            f"the operator set cannot be raised from {before} to {version}: {first_line(error)}"
        ) from error
    _put_back(model, converted)
    # ONNX's converter writes these nodes as if they had always meant what they mean now.
    for node in list(converted.graph):
        if node.op_type == "Resize" and before < _OLD_RESIZE:
            _map_as_before(node)
        elif node.op_type == "Hardmax" and before < _OLD_HARDMAX:
            _flatten(node)
    edit.name_all(converted)
    return converted


def _put_back(model: ir.Model, converted: ir.Model) -> None:
    """Give a converted model the weights, names and notes that its conversion left out."""
    named = {output.name: node for node in model.graph for output in node.outputs if output.name}
    inputs = {value.name or "": value for value in converted.graph.inputs}
    for name, value in model.graph.initializers.items():
        place = converted.graph.initializers.get(name) or inputs.get(name)
        if place is None or value.const_value is None:
            continue
        edit.set_initializer(place, value.const_value)
        if name not in converted.graph.initializers:
            if not value.is_graph_input():
                converted.graph.inputs.remove(place)
            converted.graph.register_initializer(place)
    for node in converted.graph:
        source = next((named[each.name] for each in node.outputs if each.name in named), None)
        if source is not None:
            node.name = source.name
            node.metadata_props.update(source.metadata_props)
    originals = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in (*converted.graph.inputs, *converted.graph.outputs):
        if value.name in originals:
            before = originals[value.name]
            value.type, value.shape = before.type, before.shape
            value.meta.update(before.meta)
    converted.ir_version = max(converted.ir_version or 0, model.ir_version or 0)
    converted.metadata_props.update(model.metadata_props)


def _map_as_before(node: ir.Node) -> None:
    """Let a Resize map coordinates as Upsample did, and ONNX Runtime for it: up by floor, down by ceil."""
    node.attributes["coordinate_transformation_mode"] = ir.AttrString(
        "coordinate_transformation_mode", "asymmetric"
    )
    scales = node.inputs[2].const_value if len(node.inputs) > 2 and node.inputs[2] is not None else None
    down = scales is not None and bool((scales.numpy() < 1).any())
    node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "ceil" if down else "floor")


def _flatten(node: ir.Node) -> None:
    """Let a Hardmax choose among all that stands from its axis on."""
    source, axis = node.inputs[0], node.attributes.get_int("axis", 1)
    shape = ir.node("Shape", [source])
    flat = ir.node("Flatten", [source], {"axis": axis})
    chosen = ir.node("Hardmax", [flat.outputs[0]], {"axis": -1}, name=node.name)
    edit.replace_node(node, shape, flat, chosen, ir.node("Reshape", [chosen.outputs[0], shape.outputs[0]]))
