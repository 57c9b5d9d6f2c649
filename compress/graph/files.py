"""Graphs on disk and in memory as ONNX: the one reader and the one writer.

A graph is read as its author wrote it. Only what has no meaning in ONNX is mended: nodes out of order, a
graph without a name, operator sets that nodes use and the model does not declare, sizes written as -1.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from compress.errors import ModelError, StoreError, first_line
from compress.graph.edit import bodies, declare_domains
from compress.graph.tensor_info import SMALL
from compress.graph.wire import hollow, mapped, tensors

EXTERNAL_ABOVE_BYTES = 1_500_000_000
"""A model larger than this keeps its weights beside it: a protobuf message holds at most 2 GB."""
BESIDE_FROM_BYTES = 1024
"""Bytes of the smallest initializer that goes beside a large model: the runtime needs smaller ones, such as
shapes, inside."""
LARGE = 16384
"""Bytes of an initializer above which its data stay in the file that they are read from."""
PLAIN = frozenset(
    ir.DataType.from_numpy(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "u1", "i4", "i8")
)
"""Types of weights that numpy arrays hold as ONNX Runtime does."""
LEAST_IR_VERSIONS = {
    **dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 9),
    **dict.fromkeys(("INT4", "UINT4"), 10),
    **dict.fromkeys(("FLOAT4E2M1",), 11),
    **dict.fromkeys(("INT2", "UINT2"), 13),
}
"""The version of the file format that brought a type of weights; other types are as old as ONNX."""
MOST_DENSE = 2**31
"""Elements of the largest sparse tensor that is stored as a dense one."""
FREE_INITIALIZERS = 4
"""The version of the file format since which an initializer need not be an input."""
_FOREIGN_TYPE = "type"
"""Where a value keeps a type that the graph cannot say, such as a map."""


def read(model: str | os.PathLike[str] | onnx.ModelProto) -> ir.Model:
    """Return the graph of a valid file or message; large weights of a file stay in it until they are used.

    Raises:
        ModelError: the file cannot be read.
    """
    if isinstance(model, onnx.ModelProto):
        return understood(model)
    return understood(message(model), Path(model).parent)


def message(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Return what an ONNX file says; the data of large weights are told as external data in that file.

    Raises:
        ModelError: the file cannot be read, or is not an ONNX file.
    """
    path = Path(path)
    proto = onnx.ModelProto()
    with mapped(path) as data:
        large = [each for each in tensors(data) if each.is_initializer and each.raw and each.raw[1] > LARGE]
        try:
            proto.ParseFromString(
                hollow(data, {each.start: (path.name, *each.raw) for each in large if each.raw})
            )
        except DecodeError as error:
            raise ModelError("is not an ONNX file, or is cut short") from error
    return proto


def understood(model: onnx.ModelProto, folder: str | os.PathLike[str] | None = None) -> ir.Model:
    """Return the graph that a message describes; external data stay in their files until they are used.

    Args:
        model: the message; it is not changed.
        folder: where external data are.

    Raises:
        ValueError: the message cannot be understood; onnx_ir has other errors for that too.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    _fill_sparse(proto.graph)
    if folder is not None:
        _take_in_constants(proto.graph, os.fspath(folder))
    foreign = _set_aside_foreign_types(proto.graph)
    graph = ir.from_proto(proto)
    _require_makers(graph.graph)
    if folder is not None:
        for each in graph.graphs():
            ir.external_data.set_base_dir(each, folder)
    for value in graph.graph.outputs:
        if value.name in foreign:
            value.meta[_FOREIGN_TYPE] = foreign[value.name]
    return mended(graph)


def _require_makers(graph: ir.Graph) -> None:
    """Refuse values that are read and that nothing makes."""
    for node in graph.all_nodes():
        for value in node.inputs:
            if value is not None and not _is_made(value):
                raise ValueError(
                    f"node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing makes"
                )
    for each in (graph, *(body for node in graph.all_nodes() for body in bodies(node))):
        for value in each.outputs:
            if not _is_made(value):
                raise ValueError(f"output {value.name!r} is made by nothing")


def _is_made(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return the model, which stays as it is, as an ONNX message with all its weights inside."""
    return _message(ir.external_data.load_to_model(model.clone()))


def apart(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return the model, which stays as it is, as an ONNX message, and its large weights by name beside it.

    The message names them as external data of no file: whoever reads it gets them from the arrays. Those
    that numpy has no type for, and those in bodies, are inside.
    """
    inside, beside = model.clone(), dict[str, np.ndarray]()
    for name, value in inside.graph.initializers.items():
        tensor, shown = value.const_value, value.is_graph_input() or value.is_graph_output()
        if tensor is not None and tensor.nbytes > LARGE and tensor.dtype in PLAIN and not shown:
            beside[name] = np.ascontiguousarray(tensor.numpy())
            value.const_value = None
    ir.external_data.load_to_model(inside)
    for name, array in beside.items():
        value, shape = inside.graph.initializers[name], ir.Shape(array.shape)
        dtype = ir.DataType.from_numpy(array.dtype)
        value.const_value = ir.ExternalTensor("beside", 0, array.nbytes, dtype, shape=shape, name=name)
    return _message(inside), beside


def _message(model: ir.Model) -> onnx.ModelProto:
    """Return a model as a message; nothing is said of initializers twice."""
    declare_domains(model)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if not value.is_graph_input() and not value.is_graph_output():
                value.type = value.shape = None  # the tensor says both
    proto = ir.to_proto(model)
    written = {value.name: value for value in proto.graph.output}
    for value in model.graph.outputs:
        if _FOREIGN_TYPE in value.meta:
            written[value.name or ""].type.CopyFrom(value.meta[_FOREIGN_TYPE])
    return proto


def fault(model: ir.Model) -> str:
    """Return what ONNX's checker says against a model, types and shapes included; "" if nothing."""
    try:
        onnx.checker.check_model(_message(without_weights(model)), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return first_line(error)
    return ""


def without_weights(
    model: ir.Model, leave_out: Callable[[ir.TensorProtocol], bool] = lambda tensor: tensor.size > SMALL
) -> ir.Model:
    """Return a copy with initializers as inputs: to be looked at without reading what they hold.

    Args:
        model: the model, which stays as it is.
        leave_out: which initializers of the graph become inputs; if not given, all that are large.
    """
    hollow = model.clone()
    graph = hollow.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or not leave_out(tensor):
            continue
        del graph.initializers[name]
        value.dtype, value.shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
        value.const_value = None
        if not value.is_graph_input():
            graph.inputs.append(value)
    hollow.ir_version = max(hollow.ir_version or FREE_INITIALIZERS, FREE_INITIALIZERS)
    return hollow


def weight_bytes(model: ir.Model) -> int:
    """Return the bytes of all initializers and constants as stored, 4-bit types at half a byte."""
    stored = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    constants = [node for node in model.graph.all_nodes() if node.op_type == "Constant"]
    stored += [node.attributes["value"].as_tensor() for node in constants if "value" in node.attributes]
    return sum(tensor.nbytes for tensor in stored if tensor is not None)


def is_large(model: ir.Model) -> bool:
    """Tell whether the weights of a model go beside it."""
    return weight_bytes(model) > EXTERNAL_ABOVE_BYTES


def save(model: ir.Model, path: str | os.PathLike[str]) -> Path:
    """Write a model as ONNX, whole or not at all; weights over 1.5 GB go to ``<name>.data`` beside it.

    Raises:
        StoreError: the file could not be written, or would replace the file that the model's weights, or
            those of the model it was made of, lie in; nothing is left behind.
    """
    path = Path(path)
    data = f"{path.name}.data" if is_large(model) else None
    try:
        if data is not None and path.with_name(data).resolve() in _homes(model):
            raise StoreError(f"{path}: the model's own weights lie in {data}; save it under another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
            _write(model, Path(folder, path.name), data)
            for name in filter(None, (data, path.name)):
                Path(folder, name).replace(path.with_name(name))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _homes(model: ir.Model) -> set[Path]:
    """Return the files in which weights of a model lie."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return {Path(each.path).resolve() for each in tensors if isinstance(each, ir.ExternalTensor)}


def _write(model: ir.Model, path: Path, data: str | None) -> None:
    """Write a model, which stays as it is; its initializers go to the file `data` beside it, if any."""
    model = model.clone()
    if data is None:
        model = ir.external_data.load_to_model(model)
    else:
        model = ir.external_data.unload_from_model(
            model, path.parent, data, size_threshold_bytes=BESIDE_FROM_BYTES
        )
    onnx.save(_message(model), path)


def least_ir_version(model: ir.Model) -> int:
    """Return the least version of the file format that can say what the model holds."""
    tensors = [each.const_value for graph in model.graphs() for each in graph.initializers.values()]
    needed = [LEAST_IR_VERSIONS.get(tensor.dtype.name, 0) for tensor in tensors if tensor is not None]
    return max(needed, default=0)


def _fill_sparse(graph: onnx.GraphProto) -> None:
    """Store sparse initializers and constants as dense ones, those in bodies too: nothing else reads them."""
    graph.initializer.extend(map(_dense, graph.sparse_initializer))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                dense = _dense(attribute.sparse_tensor)
                attribute.CopyFrom(onnx.helper.make_attribute("value", dense))
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _fill_sparse(body)


def _take_in_constants(graph: onnx.GraphProto, folder: str) -> None:
    """Read external data of constants, those in bodies too: onnx_ir finds only those of initializers."""
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                if uses_external_data(tensor):
                    load_external_data_for_tensor(tensor, folder)
                    tensor.ClearField("external_data")
                    tensor.ClearField("data_location")
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _take_in_constants(body, folder)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values, places = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    if not 0 <= math.prod(sparse.dims) <= MOST_DENSE:
        raise ValueError(f"sparse tensor {sparse.values.name!r} of {list(sparse.dims)} is too large")
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    try:
        if places.ndim == 1:
            dense.reshape(-1)[places] = values
        else:
            dense[tuple(places.T)] = values
    except IndexError as error:
        raise ValueError(f"sparse tensor {sparse.values.name!r}: {error}") from error
    return onnx.numpy_helper.from_array(dense, sparse.values.name)


def _set_aside_foreign_types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    """Take types that hold maps, which onnx_ir cannot read, out of a graph; return those of its outputs.

    Raises:
        ModelError: an input holds one.
    """
    for value in graph.input:
        if _holds_map(value.type):
            raise ModelError(
                f"the input {value.name!r} is a map: compress takes tensors and sequences of them"
            )
    for place in reversed(range(len(graph.value_info))):
        if _holds_map(graph.value_info[place].type):
            del graph.value_info[place]
    found = {}
    for value in graph.output:
        if _holds_map(value.type):
            found[value.name] = onnx.TypeProto()
            found[value.name].CopyFrom(value.type)
            value.ClearField("type")
    return found


def _holds_map(kind: onnx.TypeProto) -> bool:
    match kind.WhichOneof("value"):
        case "map_type":
            return True
        case "sequence_type":
            return _holds_map(kind.sequence_type.elem_type)
        case "optional_type":
            return _holds_map(kind.optional_type.elem_type)
    return False


def mended(model: ir.Model) -> ir.Model:
    """Bring nodes in order, name the graph, declare operator sets, mark sizes below zero as open."""
    model.graph.sort()
    model.graph.name = model.graph.name or "graph"
    declare_domains(model)
    for graph in model.graphs():
        for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
            if value.shape is not None and any(isinstance(dim, int) and dim < 0 for dim in value.shape):
                value.shape = ir.Shape(
                    None if isinstance(dim, int) and dim < 0 else dim for dim in value.shape
                )
    return model
