"""Coupling groups: which channels must be removed together, and their removal.

A graph is traced once (`compress.prune.trace`): every dimension of every value gets an `Axis`
(`compress.prune.axes`), and the rules of the operators (`compress.prune.rules`) say which
are equal. Each leaf axis that layers produce and other layers sum over is a coupling group. An operator
without a rule pins the axes of all its inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import compress.prune.rules  # noqa: F401  (enters the rules that the trace follows)
from compress.graph import edit
from compress.graph.layers import Layer, layers
from compress.prune.axes import Axis, Mask, kept, positions
from compress.prune.trace import Dims, Trace, traced

Kind: TypeAlias = Literal["channels", "heads", "head-width", "embedding"]
"""What an index of a group is. channels: a convolution channel, a neuron or a recurrent unit. heads: an
attention head, a key/value group or a convolution group. head-width: one number in every head. embedding:
an index of a width that a normalization averages over."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One dimension of one weight that belongs to a group.

    Attributes:
        value: the initializer.
        axis: its dimension.
        channels: int64, for each index of that dimension the index in the group, or -1.
        layers: the layers whose weight it is.
    """

    value: ir.Value
    axis: int
    channels: npt.NDArray[np.int64]
    layers: tuple[Layer, ...]

    @property
    def consumers(self) -> list[ir.Node]:
        """Layers that sum over the dimension."""
        return [layer.node for layer in self.layers if layer.in_axis == self.axis]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """A coupling group: channels that several layers share, and that are removed from all of them together.

    Attributes:
        leaf: its axis.
        kind: what one index is.
        producers: layers whose weights make the channels.
        consumers: layers that sum over them.
        members: the weights' dimensions that shrink with the group.
        rivals: leaves of other groups whose product with this one is a dimension (heads and their width).
        obstacle: why no channel may be removed; empty if channels may be removed.
    """

    leaf: Axis
    kind: Kind
    producers: tuple[ir.Node, ...]
    consumers: tuple[ir.Node, ...]
    members: tuple[Member, ...]
    rivals: frozenset[Axis]
    obstacle: str

    @property
    def size(self) -> int:
        """Number of channels."""
        return self.leaf.size

    @property
    def name(self) -> str:
        """Name of the first layer that makes the channels."""
        return self.producers[0].name or ""


@dataclass(frozen=True, slots=True)
class Removal:
    """What is left of a graph when channels are removed; it can be applied to any copy of that graph.

    Nodes are identified by their place in the graph, values by name.

    Attributes:
        kept: for every value, a mask of the kept indices of each dimension.
        attributes: by (node, attribute), the new number.
        constants: by node, and input or attribute, the new numbers of elements of a shape constant.
        consumers: nodes that sum over fewer channels than before.
    """

    kept: Mapping[str, tuple[Mask, ...]]
    attributes: Mapping[tuple[int, str], int]
    constants: Mapping[tuple[int, int | str], Mapping[int, int]]
    consumers: frozenset[int]

    def apply(self, graph: ir.Graph) -> None:
        """Shrink every weight, attribute and shape constant to the kept channels, in place."""
        nodes = list(graph)
        for (place, attribute), number in self.attributes.items():
            nodes[place].attributes[attribute] = ir.AttrInt64(attribute, number)
        for (place, where), numbers in self.constants.items():
            _rewrite(nodes[place], where, numbers)
        for value in (*graph.initializers.values(), *(value for node in nodes for value in node.outputs)):
            masks = self.kept.get(value.name or "", ())
            if not all(mask.all() for mask in masks):
                _shrink(value, masks)


class Coupling:
    """The coupling groups of a model.

    Args:
        model: the model to trace; functions and subgraphs are treated as unknown operators.
        shapes: input shapes by name, for models that cannot run at prime sizes.

    Raises:
        ModelError: the shapes of the graph cannot be inferred.
    """

    def __init__(self, model: ir.Model, shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> None:
        self._trace = traced(model, shapes)
        self._places = {node: place for place, node in enumerate(model.graph)}
        self.groups = tuple(_groups(model.graph, self._trace))

    def removal(self, keep: Mapping[Group, Mask]) -> Removal:
        """Return what is left of the graph when the groups keep only some channels.

        Args:
            keep: mask of the kept channels of each group that changes.
        """
        masks = {group.leaf: mask for group, mask in keep.items() if not mask.all()}

        def left(axis: Axis) -> int:
            return int(kept(axis, masks).sum())

        constants = {}
        for (node, place), slots in self._trace.constants.items():
            numbers = {element: sum(map(left, axes)) for element, axes in slots.items()}
            changed = {e: n for e, n in numbers.items() if n != sum(axis.size for axis in slots[e])}
            given = isinstance(place, int) and place < len(node.inputs) and node.inputs[place] is not None
            if changed:
                constants[self._places[node], place] = changed if given else numbers
        return Removal(
            {
                value.name or "": tuple(kept(axis, masks) for axis in dims)
                for value, dims in self._trace.known().items()
            },
            {(self._places[node], name): left(axis) for node, name, axis in self._trace.attributes},
            constants,
            frozenset(
                self._places[node] for group in keep if group.leaf in masks for node in group.consumers
            ),
        )


def _groups(graph: ir.Graph, trace: Trace) -> Iterator[Group]:
    producers: dict[Axis, list[ir.Node]] = {}
    kinds: dict[Axis, Kind] = {}
    for axis, node in trace.produced:
        for leaf, kind in _kinds(axis):
            producers.setdefault(leaf, []).append(node)
            kinds.setdefault(leaf, kind)
    consumers: dict[Axis, list[ir.Node]] = {}
    for axis, node in trace.consumed:
        for leaf in axis.leaves():
            consumers.setdefault(leaf, []).append(node)
    known = trace.known()
    members = _members(graph, known)
    rivals = _rivals(axis for dims in known.values() for axis in dims)
    for leaf, nodes in producers.items():
        if leaf.size == 1:
            continue
        obstacle = leaf.pinned
        if leaf not in consumers:
            obstacle = obstacle or "no layer sums over it"
        if leaf in rivals.get(leaf, ()):
            obstacle = obstacle or "it multiplies with itself in one dimension"
        yield Group(
            leaf=leaf,
            kind="embedding" if leaf.normalized else kinds[leaf],
            producers=tuple(dict.fromkeys(nodes)),
            consumers=tuple(dict.fromkeys(consumers.get(leaf, ()))),
            members=tuple(members.get(leaf, ())),
            rivals=frozenset(rivals.get(leaf, ())),
            obstacle=obstacle,
        )


def _members(graph: ir.Graph, known: Mapping[ir.Value, Dims]) -> dict[Axis, list[Member]]:
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in layers(graph):
        readers.setdefault(layer.weight, []).append(layer)
    members: dict[Axis, list[Member]] = {}
    for value in graph.initializers.values():
        reading = tuple(readers.get(value, ()))
        for i, axis in enumerate(known.get(value, ())):
            for leaf in dict.fromkeys(axis.leaves()):
                members.setdefault(leaf, []).append(Member(value, i, positions(axis, leaf), reading))
    return members


def _kinds(axis: Axis, kind: Kind = "channels") -> Iterator[tuple[Axis, Kind]]:
    """Yield the leaves of an axis that a layer produces, with the kind of each."""
    root = axis.root
    parts = [part for part in root.pieces() if part.size > 1]
    if root.kind == "leaf":
        yield root, kind
    elif root.kind == "sum" or len(parts) == 1:
        for part in parts:
            yield from _kinds(part, kind)
    else:
        for i, part in enumerate(parts):
            last = i == len(parts) - 1 and kind != "heads"
            yield from _kinds(part, "head-width" if last else "heads")


def _rivals(axes: Iterable[Axis]) -> dict[Axis, set[Axis]]:
    """Return for each leaf the leaves that it forms a product with."""
    rivals: dict[Axis, set[Axis]] = {}
    seen: set[Axis] = set()
    stack = [axis.root for axis in axes]
    while stack:
        root = stack.pop()
        if root in seen:
            continue
        seen.add(root)
        stack.extend(root.pieces())
        if root.kind == "product":
            sides = [set(part.leaves()) for part in root.parts]
            for i, side in enumerate(sides):
                for leaf in side:
                    rivals.setdefault(leaf, set()).update(*sides[:i], *sides[i + 1 :])
    return rivals


def _rewrite(node: ir.Node, where: int | str, numbers: Mapping[int, int]) -> None:
    """Replace elements of an attribute, or of a node's private copy of the constant at an input."""
    every = [numbers[element] for element in sorted(numbers)]
    if isinstance(where, str):
        node.attributes[where] = ir.AttrInt64s(where, every)
        return
    old = node.inputs[where] if where < len(node.inputs) else None
    if old is None or old.const_value is None:
        node.attributes.pop("num_outputs", None)
        array = np.array(every, np.int64)
    else:
        array = np.array(old.const_value.numpy())
        array.reshape(-1)[list(numbers)] = list(numbers.values())
    name = f"{node.outputs[0].name}/{node.op_type.lower()}_{where}"
    edit.set_input(node, where, edit.add_initializer(edit.graph_of(node), name, array))


def _shrink(value: ir.Value, selections: Sequence[Mask]) -> None:
    if value.const_value is not None:
        edit.set_initializer(value, value.const_value.numpy()[np.ix_(*selections)])
    elif value.shape is not None:
        value.shape = ir.Shape(
            int(selection.sum()) if isinstance(dim, int) else dim
            for dim, selection in zip(value.shape, selections, strict=True)
        )
