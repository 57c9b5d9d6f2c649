"""Shapes and types of every value of a graph, symbolic dimensions bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from compress.errors import ModelError, did_you_mean
from compress.graph import batch
from compress.graph.edit import declare_domains
from compress.graph.files import without_weights
from compress.graph.propagate import Propagation, propagate
from compress.graph.tensor_info import SMALL, TensorInfo, info_of

MOST_ELEMENTS = 2**40
"""Elements of the largest input: 4 TB of float32. Beyond it lie mistakes, and searches that never end."""
DEFAULT_LENGTH = 128
"""Size of an unknown dimension that is not the batch: tokens, frames or pixels."""
_NOT_TENSORS = (ir.SequenceType, ir.OptionalType)
_SIZES = (ir.DataType.INT32, ir.DataType.INT64)
"""Types of the inputs that may say how large something is."""


def infer(
    model: ir.Model, shapes: Mapping[str, Sequence[int] | int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the concrete shape of every tensor value by name, values of subgraphs included.

    Unknown input dimensions are bound to `shapes` first; otherwise the batch, which is the first dimension
    unless another one bears its name, becomes 1 and every other one `DEFAULT_LENGTH`. Equal symbols are
    bound equally, in the order of the inputs. See `describe` for how, and for the errors.
    """
    return {name: info.shape for name, info in describe(model, shapes).items()}


def describe(
    model: ir.Model, shapes: Mapping[str, Sequence[int] | int] | None = None
) -> dict[str, TensorInfo]:
    """Return shape and type of every tensor value by name, values of subgraphs included.

    The model is never run. Inference node by node comes first, then ONNX's own of whole graphs, then what
    the file says, where it was written for these very shapes. Large weights are neither serialized nor read.

    An operator whose output's size depends on the data (NonZero, NonMaxSuppression, Unique, Compress)
    counts with the largest that it may give, an If on an unknown condition with its larger branch, a Loop
    whose number of rounds depends on the data with one round. Where
    the content of a vector of integers among the inputs decides, it counts as zeros, or as ones if zeros
    fit nothing. Values in bodies that are not known, and values that are not tensors, are left out.

    Args:
        model: the model; it is not changed.
        shapes: shape by input name (a vector's may be its size alone), or size by the name of a symbolic
            dimension.

    Raises:
        ModelError: `shapes` do not fit the inputs or one another, an input has no rank and no given shape,
            or the shape of a value does not follow from all this.
    """
    return lay_out(model, shapes).known


def lay_out(
    model: ir.Model,
    shapes: Mapping[str, Sequence[int] | int] | None = None,
    rounds: Mapping[str, int] | None = None,
) -> Propagation:
    """Return shapes and types as `describe` does, and beside them sequences, branches and rounds of loops.

    Args:
        model: the model; it is not changed.
        shapes: as for `describe`.
        rounds: how often Loops run, by name, where the graph does not state it; otherwise such a Loop counts
            one round.

    Raises:
        ModelError: as `describe` does.
    """
    bound, measured = bind(model, shapes or {}), rounds or {}
    known = dict(_initializers(model)) | bound
    found = propagate(model, known, {}, measured)
    if not _unknown(model.graphs(), found):
        return found
    try:
        _infer_whole(model, bound, known)
    except ModelError as error:
        raise ModelError(f"{error}{_guesses(model, shapes or {}, bound)}") from error
    found = propagate(model, known, {}, measured)
    if not _unknown([model.graph], found):
        return found
    if _take_written(model, known):
        found = propagate(model, known, {}, measured)
        if not _unknown([model.graph], found):
            return found
    for number in (0, 1):
        trial = propagate(model, dict(known), _assumed(model, bound, number), measured)
        if not _unknown([model.graph], trial):
            return trial
    missing = _unknown([model.graph], found)[0]
    reason = found.reasons.get(missing, "it depends on values that are not known")
    raise ModelError(f"the shape of {missing!r} is not known: {reason}{_guesses(model, shapes or {}, bound)}")


def _assumed(model: ir.Model, bound: Mapping[str, TensorInfo], number: int) -> dict[str, np.ndarray]:
    """Return vectors of integers among the inputs as filled with `number`."""
    infos = {value.name or "": bound[value.name or ""] for value in _free_inputs(model)}
    return {
        name: np.full(info.shape, number, info.dtype.numpy())
        for name, info in infos.items()
        if len(info.shape) <= 1 and info.elements <= SMALL and info.dtype in _SIZES
    }


def _unknown(graphs: Iterable[ir.Graph], found: Propagation) -> list[str]:
    """Return the tensors of some graphs whose shape was not found."""
    return [
        value.name
        for graph in graphs
        for node in graph
        for value in node.outputs
        if value.name
        and value.name not in found.known
        and value.name not in found.others
        and not isinstance(value.type, _NOT_TENSORS)
    ]


def _take_written(model: ir.Model, known: dict[str, TensorInfo]) -> bool:
    """Add what the file says of values, if it was written for these inputs; tell whether it was."""
    if any(map(_is_open, _free_inputs(model))):
        return False
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.dtype and value.shape is not None and not _is_open(value):
                known.setdefault(value.name, TensorInfo(_static(value.shape), value.dtype))
    return True


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


def bind(model: ir.Model, shapes: Mapping[str, Sequence[int] | int]) -> dict[str, TensorInfo]:
    """Return a concrete shape for every graph input, as `infer` describes.

    Raises:
        ModelError: a name or size in `shapes` does not fit, an input has no rank and no given shape, or it
            has more elements than any memory holds.
    """
    inputs = {value.name or "": value for value in _free_inputs(model)}
    shapes = _spelt_out(inputs, shapes)
    symbols = _given_symbols(inputs.values(), shapes)
    given = {name: shape for name, shape in shapes.items() if not isinstance(shape, int)}
    for name, shape in given.items():
        if name not in inputs:
            raise ModelError(f"the model has no input {name!r} to give a shape{did_you_mean(name, inputs)}")
        _check_given(inputs[name], shape, symbols)
    batches = batch.symbols(inputs.values())
    bound = {}
    for name, value in inputs.items():
        if name not in given and value.shape is None:
            raise ModelError(f"input {name!r} has no shape; give one, such as {name}=1x3x224x224")
        shape = given[name] if name in given else _bind_dims(value, symbols, batches)
        bound[name] = TensorInfo(tuple(int(size) for size in shape), value.dtype or ir.DataType.FLOAT)
        if bound[name].elements > MOST_ELEMENTS:
            shown = "x".join(map(str, bound[name].shape))
            raise ModelError(f"input {name!r}: {shown} is more than any memory holds; give a smaller shape")
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


def _bind_dims(value: ir.Value, symbols: dict[str, int], batches: set[str]) -> list[int]:
    places = [axis for axis, dim in enumerate(value.shape or ()) if symbol(dim) in batches]
    batch_axis = places[0] if places else 0
    sizes = []
    for axis, dim in enumerate(value.shape or ()):
        if isinstance(dim, int) and dim >= 0:
            sizes.append(dim)
            continue
        name = symbol(dim)
        size = _evaluate(name, symbols) if name else None
        if size is None:
            size = 1 if axis == batch_axis else DEFAULT_LENGTH
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


def _infer_whole(model: ir.Model, bound: Mapping[str, TensorInfo], known: dict[str, TensorInfo]) -> None:
    """Add what ONNX's inference of whole graphs finds, which knows sequences and functions.

    Raises:
        ModelError: shapes do not fit together.
    """
    try:
        proto = ir.to_proto(_skeleton(model, bound))
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ModelError(f"shapes do not fit together: {error}") from error
    graphs = [inferred.graph]
    while graphs:
        graph = graphs.pop()
        graphs += [each.g for node in graph.node for each in node.attribute if each.HasField("g")]
        for value in (*graph.value_info, *graph.output):
            info = info_of(value.type)
            if info is not None:
                known.setdefault(value.name, info)


def _skeleton(model: ir.Model, bound: Mapping[str, TensorInfo]) -> ir.Model:
    """Return a copy with concrete inputs, no sizes that the file tells of others, and weights as inputs."""
    skeleton = without_weights(model)
    declare_domains(skeleton)
    for graph in skeleton.graphs():
        for node in graph:
            for value in node.outputs:
                value.shape = None
    for value in _free_inputs(skeleton):
        if (given := bound.get(value.name or "")) is not None:
            value.shape = ir.Shape(given.shape)
    return skeleton
