"""Tracing a graph node by node: the rules of its operators record axes, weights and shape constants.

The concrete sizes come from `compress.graph.shapes`. Every dynamic dimension is set to a different prime, so
that no dimension is mistaken for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from compress.errors import ModelError
from compress.graph import facts
from compress.graph.edit import bodies
from compress.graph.shapes import infer
from compress.prune.axes import Axis, equate, product

Dims: TypeAlias = tuple[Axis, ...]

_PRIMES = (127, 131, 137, 139, 149, 151, 157, 163, 167, 173)
_BATCH_PRIMES = (3, 5, 7, 11, 13)


@dataclass(frozen=True, slots=True)
class Slot:
    """An element of a shape tensor that is an initializer, which is input `index` of `node`.

    Its size is the number itself, which may be 0 or -1 in Reshape.
    """

    node: ir.Node
    index: int
    element: int
    size: int


class Trace:
    """The axes of every value of one graph, and the places that must change when an axis shrinks.

    Attributes:
        sizes: concrete sizes of every value, by name.
        produced: each axis whose indices have weights of their own in a layer, and that layer.
        consumed: each axis that a layer sums over, and that layer.
        attributes: node, attribute name and the axis whose size it states.
        constants: by node, and input index or name of an attribute, the axes whose sizes add up to each
            element of a list of numbers.
        opset: version of the default operator set.
    """

    def __init__(self, sizes: Mapping[str, Sequence[int]], opset: int) -> None:
        self.sizes = sizes
        self.opset = opset
        self.produced: list[tuple[Axis, ir.Node]] = []
        self.consumed: list[tuple[Axis, ir.Node]] = []
        self.attributes: list[tuple[ir.Node, str, Axis]] = []
        self.constants: dict[tuple[ir.Node, int | str], dict[int, Dims]] = {}
        self._dims: dict[ir.Value, Dims] = {}
        self._constant: set[ir.Value] = set()

    def size(self, value: ir.Value) -> tuple[int, ...] | None:
        """Return the concrete shape of a value, None if it is unknown."""
        if value.const_value is not None:
            return tuple(value.const_value.shape.numpy())
        found = self.sizes.get(value.name or "")
        return None if found is None else tuple(found)

    def dims(self, value: ir.Value | None) -> Dims:
        """Return a value's axes, new ones if it has none yet; () for a missing input."""
        if value is None:
            return ()
        if value not in self._dims:
            self._dims[value] = tuple(map(Axis, self.size(value) or ()))
        return self._dims[value]

    def known(self) -> Mapping[ir.Value, Dims]:
        """Return the axes of every value that was traced."""
        return self._dims

    def set(self, value: ir.Value, dims: Dims) -> None:
        """Give a value its axes."""
        self._dims[value] = dims

    def fresh(self, value: ir.Value, pinned: str = "") -> Dims:
        """Return new axes of a value's sizes."""
        return tuple(Axis(size, pinned) for size in self.size(value) or ())

    def is_constant(self, value: ir.Value | None) -> bool:
        """Tell whether a value follows from initializers alone."""
        return value is not None and (value.const_value is not None or value in self._constant)

    def mark_constant(self, node: ir.Node) -> None:
        """Note that a node's outputs follow from initializers alone."""
        self._constant |= set(node.outputs)

    def integers(self, node: ir.Node, index: int, attribute: str = "") -> list[int] | None:
        """Return a constant integer input, or the attribute that stands for it in older opsets; else None."""
        if attribute and attribute in node.attributes:
            return [int(number) for number in node.attributes[attribute].as_ints()]
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.const_value is None:
            return None
        return [int(number) for number in value.const_value.numpy().reshape(-1)]

    def broadcast(self, operands: Sequence[Dims]) -> Dims:
        """Equate axes from the right, as elementwise operators broadcast; axes of one index are stretched."""
        rank = max(map(len, operands))
        result = []
        for position in range(1, rank + 1):
            axes = [dims[-position] for dims in operands if len(dims) >= position]
            wide = [axis for axis in axes if axis.size != 1] or axes[:1]
            for axis in wide[1:]:
                equate(wide[0], axis)
            result.append(wide[0])
        return tuple(reversed(result))

    def follow(self, node: ir.Node, index: int, dims: Dims, *, stretches: bool = False) -> None:
        """State that input `index` of `node` is a shape tensor whose elements are the sizes of `dims`.

        A constant element is rewritten when its axis shrinks. An element that is the size of another
        value's axis equates the two axes. Any other element pins its axis. If the tensor `stretches`
        another one, as that of Expand does, an element of 1 says nothing of its axis.
        """
        value = node.inputs[index]
        sources = self.elements(node, index)
        if value is None or len(sources) != len(dims):
            for axis in dims:
                axis.pin("its size comes from a shape computation that pruning cannot follow")
            return
        for axis, source in zip(dims, sources, strict=True):
            if stretches and source is not None and source.size == 1:
                continue
            if isinstance(source, Slot):
                if source.size > 0:
                    self.rewrite(source.node, source.index, source.element, (axis,))
            elif source is not None and source.size == axis.size:
                equate(source, axis)
            else:
                axis.pin("its size is computed while the model runs")

    def rewrite(self, node: ir.Node, index: int | str, element: int, axes: Dims) -> None:
        """State that an element of a constant input or of an attribute is the sum of the sizes of `axes`."""
        slots = self.constants.setdefault((node, index), {})
        for before, now in zip(slots.get(element, ()), axes, strict=False):
            equate(before, now)
        slots[element] = axes

    def elements(self, node: ir.Node, index: int) -> list[Slot | Axis | None]:
        """Return where each element of a one-dimensional integer input comes from."""
        value = node.inputs[index]
        if value is None:
            return []
        if value.const_value is not None:
            numbers = value.const_value.numpy().reshape(-1)
            return [Slot(node, index, element, int(number)) for element, number in enumerate(numbers)]
        unknown: list[Slot | Axis | None] = [None] * int(np.prod(self.size(value) or (1,)))
        maker = value.producer()
        if maker is None or maker.domain != "":
            return unknown
        if maker.op_type == "Concat":
            return [source for i in range(len(maker.inputs)) for source in self.elements(maker, i)]
        if facts.of(maker).cost == "view" or maker.op_type == "Cast":
            return self.elements(maker, 0)
        if maker.op_type == "Mul":
            factors = [self.elements(maker, i) for i in (0, 1)]
            return [_multiplied(pair) for pair in zip(*factors, strict=False)] or unknown
        if maker.op_type == "Shape":
            start, end = maker.attributes.get_int("start", 0), maker.attributes.get_int("end", None)
            return [*self.dims(maker.inputs[0])[start:end]]
        if maker.op_type == "Where" and (kept := self.integers(maker, 0)) is not None:
            either = [self.elements(maker, i) for i in (1, 2)]
            fits = len(either[0]) == len(either[1]) == len(kept)
            return [a if first else b for first, a, b in zip(kept, *either, strict=True)] if fits else unknown
        if maker.op_type == "Gather":
            chosen, source = self.integers(maker, 1), self.elements(maker, 0)
            return unknown if chosen is None else [source[i] for i in chosen]
        if maker.op_type == "Slice":
            bounds = [self.integers(maker, i) for i in (1, 2)]
            if None not in bounds and self.integers(maker, 4) in (None, [1]):
                (start,), (end,) = bounds  # type: ignore[misc]
                return self.elements(maker, 0)[start:end]
        return unknown


def _multiplied(factors: Sequence[Slot | Axis | None]) -> Axis | None:
    axes = [factor for factor in factors if isinstance(factor, Axis)]
    return product(axes) if len(axes) == len(factors) else None


Rule: TypeAlias = Callable[[ir.Node, Trace], list[Dims] | None]
"""Records in a `Trace` which axes are equal, which ones the weights of a node produce and which ones it sums
over. Returns the axes of the node's outputs, or None if it does not support the node's attributes or
inputs, so that every axis is pinned."""


RULES: dict[str, Rule] = {}
"""Rules by operator of the default ONNX domain."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Enter a function in `RULES`."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return enter


def pin_space(dims: Dims) -> None:
    """Pin the height, width and so on of an image or a kernel."""
    for axis in dims:
        axis.pin("it is a spatial dimension")


def axis_of(node: ir.Node, rank: int, default: int) -> int:
    """Return the attribute `axis` of a node, counted from the front."""
    axis = node.attributes.get_int("axis", default)
    return axis + rank if axis < 0 else axis


def traced(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> Trace:
    """Return the axes of every value of a model's graph.

    The rules must be in `RULES`; importing `compress.prune.rules` enters them.

    Args:
        model: the model; functions and subgraphs are treated as unknown operators.
        shapes: input shapes by name, for models that cannot run at prime sizes.

    Raises:
        ModelError: the shapes of the graph cannot be inferred.
    """
    trace = Trace(_sizes(model, shapes), model.graph.opset_imports.get("", 1))
    for value in model.graph.inputs:
        if value.const_value is None:
            trace.set(value, trace.fresh(value, "it is a dimension of a graph input"))
    for node in model.graph:
        _trace_node(node, trace)
    for value in model.graph.outputs:
        for axis in trace.dims(value):
            axis.pin("it is a dimension of a graph output")
    return trace


def _trace_node(node: ir.Node, trace: Trace) -> None:
    inputs = [value for value in node.inputs if value is not None]
    if all(map(trace.is_constant, inputs)):
        trace.mark_constant(node)
    relate = RULES.get(node.op_type) if node.domain == "" else None
    sizes = [trace.size(value) for value in (*inputs, *node.outputs)]
    outputs = relate(node, trace) if relate and None not in sizes else None
    found = [tuple(axis.size for axis in dims) for dims in outputs or ()]
    if outputs is None or found != [trace.size(value) for value in node.outputs]:
        reason = f"it passes through {node.op_type} {node.name!r}, for which there is no coupling rule"
        for value in (*inputs, *_captured(node)):
            for axis in trace.dims(value):
                axis.pin(reason)
        outputs = [trace.fresh(value, reason) for value in node.outputs]
    for value, dims in zip(node.outputs, outputs, strict=True):
        trace.set(value, dims)


def _captured(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that the subgraphs of a node read, those from outside included."""
    for graph in bodies(node):
        for inner in graph.all_nodes():
            yield from (value for value in inner.inputs if value is not None)
        yield from graph.outputs


def _sizes(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, ...]]:
    primes = _prime_shapes(model.graph.inputs)
    try:
        return infer(model, primes)
    except ModelError:
        return infer(model, shapes)


def _prime_shapes(inputs: Iterable[ir.Value]) -> dict[str, tuple[int, ...]]:
    """Bind each symbol to a prime; inputs with computed or unknown dimensions are left out."""
    batches, others = iter(_BATCH_PRIMES), iter(_PRIMES)
    symbols: dict[str, int] = {}
    shapes = {}
    for value in inputs:
        dims = value.shape if value.shape is not None else ()
        names = [dim.value for dim in dims if not isinstance(dim, int)]
        if value.shape is None or not all(name and name.isidentifier() for name in names):
            continue
        sizes = []
        for position, dim in enumerate(dims):
            if not isinstance(dim, int) and dim.value not in symbols:
                symbols[str(dim.value)] = next(others if position else batches, 1)
            sizes.append(dim if isinstance(dim, int) else symbols[str(dim.value)])
        shapes[value.name or ""] = tuple(sizes)
    return shapes
