"""Weights stored in another type than is computed with: read as they are computed with, stored as they were.

Many exporters, and `float-weights`, store a weight in 16 bits and put a Cast behind it. A pass that looks
for the weights of layers would have to look through the Cast everywhere. So the Casts are taken out before a
pass works and put back after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.graph import edit
from compress.graph.layers import FLOATS, StoredTensor
from compress.graph.linear import in_range, in_type
from compress.graph.precision import HALVES, compute_in

FEWEST = 64
"""A tensor of fewer numbers is stored as it is read, since a Cast takes more bytes than that saves."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How a weight was stored.

    Attributes:
        dtype: the element type.
        cast: name of the Cast behind it.
        output: name of that Cast's output.
    """

    dtype: ir.DataType
    cast: str
    output: str


def read_plainly(model: ir.Model) -> dict[str, Storage]:
    """Take out the Casts of weights, in place; return how the weights were stored, by name."""
    found: dict[str, Storage] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            casts = value.consumers()
            types = {node.attributes.get_int("to", 0) for node in casts if node.op_type == "Cast"}
            read = len(types) == 1 and all(node.op_type == "Cast" for node in casts)
            shown = value.is_graph_input() or value.is_graph_output()
            if not read or shown or value.dtype not in FLOATS or value.const_value is None:
                continue
            dtype = ir.DataType(types.pop())
            if dtype not in FLOATS or any(node.outputs[0].is_graph_output() for node in casts):
                continue
            output = casts[0].outputs[0].name or ""
            found[value.name or ""] = Storage(value.dtype, casts[0].name or "", output)
            edit.set_initializer(value, StoredTensor(value.const_value, dtype))
            for node in casts:
                edit.bypass(node)
    return found


def compute_in_float32(model: ir.Model) -> dict[str, Storage]:
    """Let a graph compute in float32, in place; return how its weights of 16 bits were stored, by name."""
    found = {
        name: Storage(value.dtype, f"{name}.widen", f"{name}.widened")
        for graph in model.graphs()
        for name, value in graph.initializers.items()
        if value.dtype in HALVES
    }
    compute_in(model, ir.DataType.FLOAT, [each for each in FLOATS if each != ir.DataType.FLOAT])
    return found


def store_again(model: ir.Model, stored: Mapping[str, Storage]) -> None:
    """Store the weights that are left as they were stored before, in place, each with a Cast behind it."""
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or tensor.dtype not in FLOATS:
                continue
            known = stored.get(name)
            if known is None and isinstance(tensor, StoredTensor):
                known = Storage(tensor.stored.dtype, f"{name}.widen", f"{name}.widened")
            if known is not None and known.dtype != tensor.dtype:
                _store(value, tensor, known)


def _store(value: ir.Value, tensor: ir.TensorProtocol, storage: Storage) -> None:
    dtype, graph = tensor.dtype, edit.graph_of(value)
    unchanged = isinstance(tensor, StoredTensor) and tensor.stored.dtype == storage.dtype
    fits = storage.dtype.itemsize <= dtype.itemsize and (unchanged or in_range(tensor.numpy(), storage.dtype))
    if tensor.size < FEWEST or not fits or value.is_graph_output():
        edit.set_initializer(value, np.array(tensor.numpy()))
        return
    content = tensor.stored if unchanged else ir.tensor(in_type(tensor.numpy(), storage.dtype))  # type: ignore[attr-defined]
    node = ir.node("Cast", [value], {"to": dtype}, name=storage.cast)
    output = node.outputs[0]
    output.name, output.type, output.shape = storage.output, value.type, value.shape
    readers = [(use.node, use.idx) for use in value.uses() if use.node is not node]
    edit.insert_first(graph, node)
    for reader, index in readers:
        reader.replace_input_with(index, output)
    edit.set_initializer(value, content)
