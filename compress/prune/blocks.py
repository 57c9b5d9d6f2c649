"""Residual blocks: branches that an addition lays on a stream, and taking them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compress.data import Feeds
from compress.graph.layers import Layer, layers_of
from compress.graph.propagate import TensorInfo
from compress.graph.session import session
from compress.model import Model

GATE = "gate of "
"""How the inputs are called that open and close the branches of a probe."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What one addition lays on a stream that goes on without it.

    Attributes:
        addition: the Add node.
        place: which of its inputs comes out of the branch; the other one is the stream.
        nodes: nodes that nothing else needs, the addition not among them.
        layers: their layers with weights, at least one.
    """

    addition: ir.Node
    place: int
    nodes: tuple[ir.Node, ...]
    layers: tuple[Layer, ...]

    @property
    def name(self) -> str:
        """Name of the first layer."""
        return self.layers[0].name

    @property
    def stream(self) -> ir.Value:
        """The value that is left when the branch goes."""
        return _operand(self.addition, 1 - self.place)


def residual_blocks(graph: ir.Graph, known: Mapping[str, TensorInfo]) -> list[Block]:
    """Return the residual blocks of a graph in its order; a block may hold others.

    A branch counts if it is computed from the stream that it is added to (or from a term of that sum, as
    attention and feed-forward side by side are), has a layer with weights, and leaves the stream's shape.

    Args:
        graph: the graph; bodies of control flow are not looked into.
        known: shape and type of its values, by name.
    """
    order = {node: place for place, node in enumerate(graph)}
    blocks = []
    for node in graph:
        if node.op_type != "Add" or node.domain:
            continue
        for place in (1, 0):
            branch, stream = _operand(node, place), _operand(node, 1 - place)
            if _shape(stream, known) != _shape(node.outputs[0], known):
                continue
            inside = _branch(branch, _terms(stream))
            nodes = _needed_by_none_else(sorted(inside, key=order.__getitem__), node)
            found = [layer for inner in nodes for layer in layers_of(inner)]
            if found:
                blocks.append(Block(node, place, tuple(nodes), tuple(found)))
                break
    return blocks


def drop(model: ir.Model, blocks: Iterable[Block]) -> None:
    """Take blocks out of a model, with all that only they needed."""
    for block in blocks:
        result, stream = block.addition.outputs[0], block.stream
        if result.is_graph_output():
            kept = ir.Node("", "Identity", [stream], name=block.addition.name)
            block.addition.prepend(kept)
            name = result.name
            kept.outputs[0].type, kept.outputs[0].shape = result.type, result.shape
            result.replace_all_uses_with(kept.outputs[0], replace_graph_outputs=True)
            result.name, kept.outputs[0].name = f"{name}/dropped", name
        else:
            result.replace_all_uses_with(stream)
    RemoveUnusedNodesPass()(model)


class Gated:
    """A model that runs with any of its residual branches closed, in one session.

    Args:
        model: the model; it is not changed.
        known: shape and type of its values, by name.
    """

    def __init__(self, model: Model, known: Mapping[str, TensorInfo]) -> None:
        probe = model.copy()
        self._gates: list[tuple[str, np.dtype]] = []
        for number, block in enumerate(residual_blocks(probe.graph, known)):
            branch = _operand(block.addition, block.place)
            dtype = known[branch.name or ""].dtype
            gate = ir.val(f"{GATE}{number}", dtype=dtype, shape=ir.Shape(()))
            closed = ir.Node("", "Mul", [branch, gate], name=f"{GATE}{number}")
            closed.outputs[0].name = f"gated {number}"
            block.addition.prepend(closed)
            block.addition.replace_input_with(block.place, closed.outputs[0])
            probe.graph.inputs.append(gate)
            self._gates.append((gate.name or "", dtype.numpy()))
        self._session = session(probe.ir)

    def run(self, feeds: Feeds, closed: Iterable[int]) -> list[np.ndarray]:
        """Return the outputs with some blocks closed, by their number in `residual_blocks`."""
        shut = set(closed)
        gates = {
            name: np.array(number not in shut, dtype) for number, (name, dtype) in enumerate(self._gates)
        }
        outputs: list[np.ndarray] = self._session.run(None, {**feeds, **gates})
        return outputs


def _operand(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None  # an Add has two inputs
    return value


def _shape(value: ir.Value, known: Mapping[str, TensorInfo]) -> tuple[int, ...] | None:
    found = known.get(value.name or "")
    return None if found is None else found.shape


def _terms(value: ir.Value) -> set[ir.Value]:
    """Return a value and, where it is a sum, its terms and theirs, constants left out."""
    terms: set[ir.Value] = set()
    stack: list[ir.Value | None] = [value]
    while stack:
        term = stack.pop()
        if term is None or term in terms or term.const_value is not None:
            continue
        terms.add(term)
        maker = term.producer()
        if maker is not None and maker.op_type == "Add" and not maker.domain:
            stack.extend(maker.inputs)
    return terms


def _branch(end: ir.Value, starts: set[ir.Value]) -> set[ir.Node]:
    """Return the nodes between any of `starts` and `end`; none if `end` does not depend on them."""
    nodes: set[ir.Node] = set()
    reached = False
    stack: list[ir.Value | None] = [end]
    while stack:
        value = stack.pop()
        maker = None if value is None else value.producer()
        if value in starts:
            reached = True
        elif maker is not None and maker not in nodes:
            nodes.add(maker)
            stack.extend(maker.inputs)
    return nodes if reached else set()


def _needed_by_none_else(nodes: Sequence[ir.Node], addition: ir.Node) -> list[ir.Node]:
    """Return those of `nodes`, in order, that are of no use without `addition`'s branch."""
    useless = {addition}
    for node in reversed(nodes):
        outputs = node.outputs
        if not any(value.is_graph_output() for value in outputs) and _readers(outputs) <= useless:
            useless.add(node)
    return [node for node in nodes if node in useless]


def _readers(values: Iterable[ir.Value]) -> set[ir.Node]:
    return {use.node for value in values for use in value.uses()}


def initializers(nodes: Iterable[ir.Node]) -> Iterator[ir.Value]:
    """Yield the tensors that only `nodes` read."""
    inside = set(nodes)
    values = dict.fromkeys(value for node in inside for value in node.inputs if value is not None)
    for value in values:
        if value.const_value is not None and _readers([value]) <= inside:
            yield value
