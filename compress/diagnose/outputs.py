"""What a graph says of its outputs, and the floats that decide what they hold."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compress.graph import facts

_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True, slots=True)
class Output:
    """An output, and how two models that compute it may differ in its size.

    Attributes:
        name: its name, or its number.
        free: axes whose size no input and no number in the graph tells; None where not even their
            count is told.
        is_chosen: whether the data decide how many items it has, as behind a NonMaxSuppression.
        along: the axis of these items; None if it is not known.
    """

    name: str
    free: frozenset[int] | None = frozenset()
    is_chosen: bool = False
    along: int | None = None

    def may_differ(self, ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
        """Tell whether two models that keep the graph's word may give these two shapes."""
        if self.free is None:
            return True
        if len(ours) != len(theirs):
            return False
        if 0 in (*ours, *theirs):  # what holds no element may have any other sizes
            return bool(self.free)
        axes = enumerate(zip(ours, theirs, strict=True))
        return {axis for axis, (mine, other) in axes if mine != other} <= self.free


def read_outputs(graph: ir.Graph) -> list[Output]:
    """Return what the graph says of each of its outputs."""
    sizes = [size for value in graph.inputs for size in value.shape or ()]
    told = {size.value for size in sizes if isinstance(size, ir.SymbolicDim)} - {None}
    found = []
    for value in graph.outputs:
        name, is_chosen = value.name or "", _is_chosen(value)
        if value.shape is None or not isinstance(value.type, ir.TensorType):
            found.append(Output(name, None, is_chosen))
            continue
        free = frozenset(
            axis
            for axis, size in enumerate(value.shape)
            if isinstance(size, ir.SymbolicDim) and size.value not in told
        )
        along = min(free) if is_chosen and len(free) == 1 else None
        found.append(Output(name, None if is_chosen else free, is_chosen, along))
    return found


def decided(model: ir.Model) -> ir.Model:
    """Return the model, or a copy whose outputs are the floats that decide what the model gives.

    A float output decides itself. Integers, booleans, strings and items that the data choose only tell
    where such floats pass each other: the scores behind an ArgMax tell more of how close two models are.
    An output that no float decides stays as it is.
    """
    if all(_deciding(output) == [output] for output in model.graph.outputs):
        return model
    copy = model.clone()
    deciding = [value for output in copy.graph.outputs for value in _deciding(output)]
    copy.graph.outputs[:] = list(dict.fromkeys(deciding))
    RemoveUnusedNodesPass()(copy)
    return copy


def _deciding(output: ir.Value) -> list[ir.Value]:
    """Return the first computed floats on every way back from an output whose items data do not choose."""
    found: list[ir.Value] = []
    seen, waiting = {output}, [output]
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None:
            continue
        if (value.dtype is None or value.dtype.is_floating_point()) and not _is_chosen(value):
            found.append(value)
            continue
        if any(each.type in _BODIES for each in node.attributes.values()):
            return [output]  # what its body reads from outside is no input of it
        before = [each for each in node.inputs if each is not None and each not in seen]
        seen.update(before)
        waiting += before
    return found or [output]


def _is_chosen(value: ir.Value) -> bool:
    """Tell whether the data decide which items a value has: it is behind an operator that chooses them."""
    seen, waiting = {value}, [value]
    while waiting:
        node = waiting.pop().producer()
        operator = facts.UNKNOWN if node is None else facts.of(node)
        if operator.sized_by_data:
            return True
        if node is not None and (operator.moves_only or operator.elementwise):
            before = [each for each in node.inputs if each is not None and each not in seen]
            seen.update(before)
            waiting += before
    return False
