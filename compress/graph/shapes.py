"""Shapes and types of every value of a graph, symbolic dimensions bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from compress.errors import ModelError, did_you_mean
from compress.graph.propagate import SMALL, TensorInfo, propagate
from compress.graph.session import RUNTIME_ERRORS

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

DEFAULT_LENGTH = 128
"""Size of an unknown dimension that is not the first one: tokens, frames or pixels."""
_NOT_TENSORS = (ir.SequenceType, ir.OptionalType)


def infer(
    model: ir.Model, shapes: Mapping[str, Sequence[int] | int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the concrete shape of every tensor value by name, values of subgraphs included.

    Unknown input dimensions are bound to `shapes` first; otherwise the first dimension of an input
    becomes 1 and every other one `DEFAULT_LENGTH`. Equal symbols are bound equally, in the order of
    the inputs. See `describe` for how, and for the errors.
    """
    return {name: info.shape for name, info in describe(model, shapes).items()}


def describe(
    model: ir.Model, shapes: Mapping[str, Sequence[int] | int] | None = None
) -> dict[str, TensorInfo]:
    """Return shape and type of every tensor value by name, values of subgraphs included.

    Inference node by node comes first, then that of whole graphs for bodies of loops. What they leave
    open (contrib operators, sizes that depend on data) is read from one run in ONNX Runtime on inputs
    of zeros that returns shapes only.
    Large weights are neither serialized nor read. Values inside subgraphs that only a run could
    tell, and values that are not tensors, are left out.

    Args:
        model: the model; it is not changed.
        shapes: shape by input name (a vector's may be its size alone), or size by the name of a symbolic
            dimension.

    Raises:
        ModelError: `shapes` do not fit the inputs, an input has no rank and no given shape, or the
            graph cannot run at these shapes.
    """
    bound = bind(model, shapes or {})
    known = dict(_initializers(model))
    known |= bound
    propagate(model, known)
    bodies = len(list(model.graphs())) > 1
    if bodies or _missing(model, known):
        skeleton = _skeleton(model, bound)
        try:
            _infer_statically(skeleton, known)
            missing = _missing(model, known)
            if missing:
                known |= _infer_by_running(skeleton, known, missing)
        except ModelError as error:
            raise ModelError(f"{error}{_guesses(model, shapes or {}, bound)}") from error
    return known


def _guesses(
    model: ir.Model, shapes: Mapping[str, Sequence[int] | int], bound: Mapping[str, TensorInfo]
) -> str:
    """Return which sizes nobody gave, for a message: they may be why shapes do not fit."""
    symbols = {name for name, size in shapes.items() if isinstance(size, int)}
    guessed = [
        f"{value.name}={'x'.join(map(str, bound[value.name or ''].shape))}"
        for value in _free_inputs(model)
        if value.name not in shapes and _is_open(value) and not _symbols([value]) & symbols
    ]
    if not guessed:
        return ""
    return f". Open sizes were taken as {', '.join(guessed)}; give the real ones (shapes, or --shape)"


def _missing(model: ir.Model, known: Mapping[str, TensorInfo]) -> list[str]:
    return [
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name and value.name not in known and not isinstance(value.type, _NOT_TENSORS)
    ]


def bind(model: ir.Model, shapes: Mapping[str, Sequence[int] | int]) -> dict[str, TensorInfo]:
    """Return a concrete shape for every graph input, as `infer` describes.

    Raises:
        ModelError: a name or size in `shapes` does not fit, or an input has no rank and no given shape.
    """
    inputs = {value.name or "": value for value in _free_inputs(model)}
    shapes = _spelt_out(inputs, shapes)
    symbols = _given_symbols(inputs.values(), shapes)
    given = {name: shape for name, shape in shapes.items() if not isinstance(shape, int)}
    for name, shape in given.items():
        if name not in inputs:
            raise ModelError(f"the model has no input {name!r} to give a shape{did_you_mean(name, inputs)}")
        _check_given(inputs[name], shape, symbols)
    bound = {}
    for name, value in inputs.items():
        if name not in given and value.shape is None:
            raise ModelError(f"input {name!r} has no shape; give one, such as {name}=1x3x224x224")
        shape = given[name] if name in given else _bind_dims(value, symbols)
        bound[name] = TensorInfo(tuple(int(size) for size in shape), value.dtype or ir.DataType.FLOAT)
    return bound


def _spelt_out(
    inputs: Mapping[str, ir.Value], shapes: Mapping[str, Sequence[int] | int]
) -> dict[str, Sequence[int] | int]:
    """Return `shapes` with a single size that bears a vector's name, and no dimension's, as its shape."""
    vectors = {name for name, value in inputs.items() if value.shape is not None and len(value.shape) == 1}
    vectors -= _symbols(inputs.values())
    return {
        name: (size,) if isinstance(size, int) and name in vectors else size for name, size in shapes.items()
    }


def _symbols(inputs: Iterable[ir.Value]) -> set[str]:
    names = (symbol(dim) for value in inputs for dim in value.shape or ())
    return {name for name in names if name}


def symbol(dim: int | ir.SymbolicDim) -> str | None:
    """Return the name of an open size, if it has one; some exporters call them all ``?``, equal or not."""
    return None if isinstance(dim, int) or dim.value == "?" else dim.value


def _free_inputs(model: ir.Model) -> list[ir.Value]:
    return [
        value
        for value in model.graph.inputs
        if value.name not in model.graph.initializers and not isinstance(value.type, _NOT_TENSORS)
    ]


def _given_symbols(inputs: Iterable[ir.Value], shapes: Mapping[str, Sequence[int] | int]) -> dict[str, int]:
    """Return the sizes given by the name of a symbolic dimension."""
    known = _symbols(inputs)
    symbols = {name: size for name, size in shapes.items() if isinstance(size, int)}
    for name, size in symbols.items():
        if name not in known:
            raise ModelError(f"the model has no open dimension {name!r}{did_you_mean(name, known)}")
        if size < 0:
            raise ModelError(f"dimension {name!r}: {size} is negative")
    return symbols


def _check_given(value: ir.Value, shape: Sequence[int], symbols: dict[str, int]) -> None:
    shown = "x".join(map(str, shape))
    if any(size < 0 for size in shape):
        raise ModelError(f"input {value.name!r}: shape {shown} has a negative size")
    if value.shape is None:
        return
    if len(shape) != len(value.shape):
        raise ModelError(f"input {value.name!r}: shape {shown} where the model takes {value.shape}")
    for size, dim in zip(shape, value.shape, strict=True):
        name = symbol(dim)
        wanted = dim if isinstance(dim, int) else symbols.setdefault(name, size) if name else size
        if wanted not in (size, -1):
            raise ModelError(f"input {value.name!r}: shape {shown} where the model takes {value.shape}")


def _bind_dims(value: ir.Value, symbols: dict[str, int]) -> list[int]:
    sizes = []
    for axis, dim in enumerate(value.shape or ()):
        if isinstance(dim, int) and dim >= 0:
            sizes.append(dim)
            continue
        name = symbol(dim)
        size = _evaluate(name, symbols) if name else None
        if size is None:
            size = 1 if axis == 0 else DEFAULT_LENGTH
            if name:
                symbols[name] = size
        sizes.append(size)
    return sizes


def _evaluate(name: str, symbols: Mapping[str, int]) -> int | None:
    """Return the size of a symbol or of a sum of symbols such as ``past + sequence``."""
    sizes = []
    for term in name.split("+"):
        word = term.strip()
        size = int(word) if word.isdecimal() else symbols.get(word)
        if size is None:
            return symbols.get(name)
        sizes.append(size)
    return sum(sizes)


def _initializers(model: ir.Model) -> Iterator[tuple[str, TensorInfo]]:
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is not None:
                yield name, TensorInfo(_static(tensor.shape), tensor.dtype)


def _static(shape: ir.ShapeProtocol) -> tuple[int, ...]:
    return tuple(dim for dim in shape if isinstance(dim, int))


def _is_open(value: ir.Value) -> bool:
    """Tell whether a shape leaves sizes open; some exporters write -1 for them."""
    return value.shape is None or not all(isinstance(dim, int) and dim >= 0 for dim in value.shape)


def _skeleton(model: ir.Model, bound: Mapping[str, TensorInfo]) -> ir.Model:
    """Return a copy with concrete inputs, and with large initializers turned into inputs."""
    skeleton = model.clone()
    for graph in skeleton.graphs():
        for node in graph:
            for value in node.outputs:
                if _is_open(value):
                    value.shape = None
    graph = skeleton.graph
    inputs = _free_inputs(skeleton)
    if any(map(_is_open, inputs)):
        # Sizes of outputs written into the file may be those of another batch.
        for value in graph.outputs:
            if value.producer() is not None:
                value.shape = None
    for value in inputs:
        value.shape = ir.Shape(bound[value.name or ""].shape)
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.size <= SMALL:
            continue
        del graph.initializers[name]
        value.dtype, value.shape = tensor.dtype, ir.Shape(_static(tensor.shape))
        value.const_value = None
        if not value.is_graph_input():
            graph.inputs.append(value)
    skeleton.ir_version = max(skeleton.ir_version or 4, 4)
    return skeleton


def _infer_statically(skeleton: ir.Model, known: dict[str, TensorInfo]) -> None:
    """Add what ONNX's own shape inference finds."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(ir.to_proto(skeleton), data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"shapes do not fit together: {error}") from error
    for graph in ir.from_proto(inferred).graphs():
        for node in graph:
            for value in node.outputs:
                if value.name and value.shape is not None and value.shape.is_static() and value.dtype:
                    known.setdefault(value.name, TensorInfo(_static(value.shape), value.dtype))


def _infer_by_running(
    skeleton: ir.Model, known: Mapping[str, TensorInfo], missing: Sequence[str]
) -> dict[str, TensorInfo]:
    """Return shape and type of the `missing` values, from one run of ONNX Runtime without optimizations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    proto = ir.to_proto(skeleton)
    shape_names = _watch(proto, missing)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        sizes = _run(session, shape_names, known)
    except RUNTIME_ERRORS as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the shape of {missing[0]!r} follows neither from the graph nor from a run: {first}"
        ) from error
    types = {output.name: output.type for output in session.get_outputs()}
    return {
        name: TensorInfo(tuple(map(int, size)), _dtype(types[name]))
        for name, size in zip(missing, sizes, strict=True)
    }


def _watch(proto: onnx.ModelProto, missing: Sequence[str]) -> list[str]:
    """Make every missing value and its Shape outputs of the graph; return the names of the Shapes."""
    import onnx

    taken = {output.name for output in proto.graph.output}
    names = [f"{name}/shape" for name in missing]
    for name, shape_name in zip(missing, names, strict=True):
        proto.graph.node.append(onnx.helper.make_node("Shape", [name], [shape_name]))
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(shape_name, onnx.TensorProto.INT64, [None])
        )
        if name not in taken:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    return names


def _run(session: ort.InferenceSession, names: list[str], known: Mapping[str, TensorInfo]) -> list[Any]:
    """Run on zeros and, as a size or a step of zero may be refused, on small inputs of one."""
    inputs = [value.name for value in session.get_inputs()]
    try:
        return list(session.run(names, {name: _filled(known[name], 0) for name in inputs}))
    except RUNTIME_ERRORS:
        ones = {name: _filled(known[name], int(known[name].elements <= SMALL)) for name in inputs}
        return list(session.run(names, ones))


def _filled(info: TensorInfo, number: int) -> Any:
    """Return an array of zeros (pages that are never touched take no memory) or of ones."""
    import onnxruntime as ort

    array = (
        np.zeros(info.shape, info.dtype.numpy()) if not number else np.ones(info.shape, info.dtype.numpy())
    )
    if array.dtype.isbuiltin == 1:  # 2 is an extension type such as int4
        return array
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, info.dtype.value)


def _dtype(text: str) -> ir.DataType:
    """Return the type that ONNX Runtime writes as ``tensor(float16)``."""
    word = text.removeprefix("tensor(").removesuffix(")")
    known = {"string": ir.DataType.STRING} | {dtype.name.lower(): dtype for dtype in ir.DataType}
    return known.get(word, ir.DataType.FLOAT)
