"""The one way to change a graph: put nodes and initializers in, replace them, take them out.

Every function finds the graph that it works on from the node or the value it is given, so the bodies of
If, Loop and Scan are edited like the graph around them. What a function is not asked to change keeps its
name, type and shape. A new node's operator set is declared in its graph; `declare_domains` declares those
of bodies in the graph or the function around them, where ONNX looks for them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass


def add_initializer(graph: ir.Graph, name: str, content: np.ndarray) -> ir.Value:
    """Add an initializer under `name`, or under the first free ``name_1``, ``name_2``, …

    One that has the name and the content already is returned: two readers of a weight share it.
    """
    tensor = ir.tensor(np.array(content, order="C"))
    free, number = name, 0
    while free in graph.initializers:
        if same_tensor(graph.initializers[free].const_value, tensor):
            return graph.initializers[free]
        number += 1
        free = f"{name}_{number}"
    tensor.name = free
    value = ir.val(free, const_value=tensor)
    graph.register_initializer(value)
    return value


def same_tensor(one: ir.TensorProtocol | None, other: ir.TensorProtocol | None) -> bool:
    """Tell whether two tensors have the same type, shape and content."""
    if one is None or other is None or one is other:
        return one is other
    return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()


def set_initializer(value: ir.Value, content: np.ndarray | ir.TensorProtocol) -> None:
    """Give an initializer new content, with its type and shape; all its readers read it."""
    if isinstance(content, np.ndarray):
        content = ir.tensor(np.array(content, order="C"), name=value.name)
    value.const_value, value.type = content, ir.TensorType(content.dtype)
    value.shape = ir.Shape(content.shape.numpy())


def insert_first(graph: ir.Graph, *nodes: ir.Node) -> None:
    """Insert nodes before all others of a graph."""
    _declare(graph, nodes)
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def insert_before(node: ir.Node, *nodes: ir.Node) -> None:
    """Insert nodes before `node`, in its graph."""
    graph = graph_of(node)
    _declare(graph, nodes)
    graph.insert_before(node, nodes)


def insert_after(value: ir.Value, *nodes: ir.Node) -> None:
    """Insert nodes where `value` first exists: after the node that makes it, or before all others.

    They land in the graph that defines the value, so every reader of it may read them, in bodies too.
    """
    producer = value.producer()
    graph = graph_of(value if producer is None else producer)
    if producer is None:
        insert_first(graph, *nodes)
    else:
        _declare(graph, nodes)
        graph.insert_after(producer, nodes)


def replace_node(old: ir.Node, *new: ir.Node) -> None:
    """Put nodes in the place of one: the last has its outputs, under their names, types and shapes.

    Inputs of the old node that nothing else reads are removed.

    Raises:
        ValueError: something reads an output of the old node that the last of the new ones lacks.
    """
    insert_before(old, *new)
    for place, before in enumerate(old.outputs):
        if place < len(new[-1].outputs):
            after = new[-1].outputs[place]
            after.name, after.type, after.shape = before.name, before.type, before.shape
            before.replace_all_uses_with(after, replace_graph_outputs=True)
    remove(old)


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let all readers of one value read another, and remove the old one if it can be.

    If the old value is an output of its graph, the new one is that output and gets its name. The new
    value takes over a type and a shape where it has none.
    """
    if old.is_graph_output():
        put_out(old, new)
    new.type, new.shape = new.type or old.type, new.shape if new.shape is not None else old.shape
    old.replace_all_uses_with(new)
    remove_unread(old)


def put_out(old: ir.Value, new: ir.Value) -> None:
    """Make `new` the graph's output in place of `old`; the two swap names."""
    outputs = graph_of(old).outputs
    old.name, new.name = new.name, old.name
    for place, value in enumerate(outputs):
        if value is old:
            outputs[place] = new


def set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Make `value` the input `index` of a node; what it read before is removed if nothing else reads it."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    before = node.inputs[index]
    node.replace_input_with(index, value)
    if before is not None and before is not value:
        remove_unread(before)


def bypass(node: ir.Node, index: int = 0) -> None:
    """Let the readers of a node's first output read its input `index` instead, and remove the node.

    If that output is a graph output, an Identity with the node's name takes the node's place instead.

    Raises:
        ValueError: the node has no such input.
    """
    source, output = node.inputs[index], node.outputs[0]
    if source is None:
        raise ValueError(f"node {node.name!r} ({node.op_type}) has no input {index}")
    if output.is_graph_output():
        replace_node(node, ir.node("Identity", [source], name=node.name))
    else:
        output.replace_all_uses_with(source)
        remove(node)


def remove(node: ir.Node) -> None:
    """Remove a node, and all that only it needed: nodes before it, initializers, what its bodies read.

    Raises:
        ValueError: something reads an output of the node, or it is a graph output.
    """
    graph, inputs = graph_of(node), [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for inner in [each for body in bodies(node) for each in body.all_nodes()]:
        inputs += [value for value in inner.inputs if value is not None]
        for place in range(len(inner.inputs)):
            inner.replace_input_with(place, None)
    for value in dict.fromkeys(inputs):
        remove_unread(value)


def remove_unread(value: ir.Value) -> None:
    """Remove an unread value: the initializer, or the node that makes it. A graph output counts as read."""
    producer, graph = value.producer(), value.graph
    if graph is None or value.is_graph_input():
        return
    if producer is None:
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[value.name or ""]
    elif producer.graph is graph and not any(
        each.uses() or each.is_graph_output() for each in producer.outputs
    ):
        remove(producer)


def bodies(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs inside a node: none, the body of a Loop or a Scan, the branches of an If."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            found.extend(attribute.as_graphs())
    return found


def declare_domains(model: ir.Model) -> None:
    """Declare every operator set that nodes use, those in bodies too, in the model's graph and functions."""
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        _declare(owner, owner.all_nodes())


def _declare(owner: ir.Graph | ir.Function, nodes: Iterable[ir.Node]) -> None:
    for node in nodes:
        if node.domain:
            owner.opset_imports.setdefault(node.domain, node.version or 1)


def name_all(model: ir.Model) -> None:
    """Give every node and value a name of its own; outputs that a node leaves out stay without."""
    values = [value for node in model.graph.all_nodes() for value in node.outputs]
    left_out = [value for value in values if not (value.name or value.uses() or value.is_graph_output())]
    NameFixPass()(model)
    for value in left_out:
        value.name = ""


def graph_of(part: ir.Node | ir.Value) -> ir.Graph:
    """Return the graph that a node or a value belongs to."""
    if part.graph is None:
        raise ValueError(f"{part.name!r} is in no graph")
    return part.graph
