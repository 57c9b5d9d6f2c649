"""Residual blocks: finding them, measuring what each contributes to the outputs, and removing them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compress.changes import Change, Reason
from compress.data import Feeds, shapes
from compress.errors import LimitError
from compress.graph import edit, facts
from compress.graph.layers import Layer, layers_of
from compress.graph.session import session
from compress.graph.shapes import describe
from compress.graph.tensor_info import TensorInfo
from compress.model import Model
from compress.progress import track
from compress.prune.price import Unit, prices

GATE = "gate of "
"""Prefix of the names of the inputs of a probe that switch its branches on and off."""
Effect: TypeAlias = Callable[[Collection[int]], float]
"""Returns the relative error of all outputs when the numbered blocks are switched off."""


def drop_blocks(
    model: Model,
    selects: Callable[..., bool],
    *,
    ratio: float,
    of: Literal["blocks"] | Unit,
    hardware: str,
    greedy: bool,
    batches: int,
) -> list[Change]:
    """Drop the residual blocks that change the outputs least, in place.

    Args:
        model: the model, with calibration data.
        selects: tells from the names of a block's layers and weights whether the block may be dropped.
        ratio: fraction of the blocks, rounded down but at least one block, or of the cost.
        of: blocks, or the unit of a cost.
        hardware: the profile that prices energy.
        greedy: whether effects are measured again after each dropped block.
        batches: calibration batches on which effects are measured.

    Raises:
        DataError: there are no calibration data.
        LimitError: all blocks together cost less than the ratio asks for.
    """
    feeds = list(itertools.islice(model.batches(), batches))
    sizes = shapes(feeds[0])
    known = describe(model.ir, sizes)
    blocks = residual_blocks(model.graph, known)
    allowed = [number for number, block in enumerate(blocks) if selects(*block.names)]
    if not allowed:
        reason = Reason.LEFT_OUT if blocks else Reason.ABSENT.because("there is no residual block")
        return [Change(block.name, skipped=reason) for block in blocks] or [Change("", skipped=reason)]
    if of == "blocks":
        costs: Mapping[str, float] = {block.end: 1.0 for block in blocks}
        goal = max(int(ratio * len(costs) + 1e-9), 1.0)
    else:
        costs = prices(model, of, hardware, sizes)
        goal = ratio * sum(costs.values())
    found = _search(blocks, allowed, costs, goal, Gated(model.ir, known).effects(feeds), greedy=greedy)
    if found is None:
        raise LimitError(
            f"drop-blocks: all blocks together are less than {ratio:.0%} of the {of}; lower the ratio"
        )
    dropped, others = found
    changes = [_account(blocks[number], effect) for number, effect in dropped.items()]
    for number, block in enumerate(blocks):
        if number not in dropped:
            changes.append(Change(block.name, skipped=_reason(others.get(number), number in allowed)))
    drop(model.ir, [blocks[number] for number in dropped])
    return changes


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A residual block: a branch, and the addition that adds its result to the stream.

    Attributes:
        addition: the Add or Sum node.
        place: the input of the addition that is the branch; the other ones are the stream.
        nodes: the nodes that only the branch needs, without the addition.
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
    def names(self) -> list[str]:
        """Names of the layers' nodes and of their weights, by which a user may select the block."""
        return [name for layer in self.layers for name in layer.names]

    @property
    def end(self) -> str:
        """Name of the branch's last node, which no other block ends with."""
        return self.nodes[-1].name or ""

    @property
    def all_nodes(self) -> set[str]:
        """Names of all nodes that go with it: the addition too, unless it still adds others."""
        binary = [self.addition] if len(self.addition.inputs) == 2 else []
        return {node.name or "" for node in (*self.nodes, *binary)}


def residual_blocks(graph: ir.Graph, known: Mapping[str, TensorInfo]) -> list[Block]:
    """Return the residual blocks of a graph in its order; a block may contain others.

    A branch is a block if it is computed from the stream that it is added to, or from a term of that sum
    (as parallel attention and feed-forward are), has a layer with weights, and keeps the stream's shape.

    Args:
        graph: the graph; bodies of control flow are not looked into.
        known: shape and type of its values, by name.
    """
    order = {node: place for place, node in enumerate(graph)}
    blocks: list[Block] = []
    for node in graph:
        stream = set(range(len(node.inputs))) if facts.of(node).adds else set()
        for place in sorted(stream, reverse=True):
            rest = [_operand(node, other) for other in stream - {place}]
            if all(_shape(value, known) != _shape(node.outputs[0], known) for value in rest):
                continue
            inside = _branch(_operand(node, place), _terms(rest))
            nodes = _needed_by_none_else(sorted(inside, key=order.__getitem__), node)
            found = [layer for inner in nodes for layer in layers_of(inner)]
            if found:
                blocks.append(Block(node, place, tuple(nodes), tuple(found)))
                stream.remove(place)
    return blocks


def drop(model: ir.Model, blocks: Iterable[Block]) -> None:
    """Remove blocks from a model, and all nodes that only they needed."""
    branches: dict[ir.Node, set[int]] = {}
    for block in blocks:
        branches.setdefault(block.addition, set()).add(block.place)
    for addition, places in branches.items():
        if addition.graph is None:  # it was removed with a block around it
            continue
        stream = [place for place in range(len(addition.inputs)) if place not in places]
        if len(stream) == 1:
            edit.bypass(addition, stream[0])
        else:
            rest = [addition.inputs[place] for place in stream]
            edit.replace_node(addition, ir.node(addition.op_type, rest, name=addition.name))
    RemoveUnusedNodesPass()(model)


class Gated:
    """A graph in one session that runs with any of its residual branches switched off.

    Args:
        model: the model; it is not changed.
        known: shape and type of its values, by name.
    """

    def __init__(self, model: ir.Model, known: Mapping[str, TensorInfo]) -> None:
        probe = model.clone()
        self._gates: list[tuple[str, np.dtype]] = []
        for number, block in enumerate(residual_blocks(probe.graph, known)):
            branch = _operand(block.addition, block.place)
            dtype = known[branch.name or ""].dtype
            gate = ir.val(f"{GATE}{number}", dtype=dtype, shape=ir.Shape(()))
            closed = ir.node("Mul", [branch, gate], name=f"{GATE}{number}")
            closed.outputs[0].name = f"gated {number}"
            edit.insert_before(block.addition, closed)
            edit.set_input(block.addition, block.place, closed.outputs[0])
            probe.graph.inputs.append(gate)
            self._gates.append((gate.name or "", dtype.numpy()))
        self._session = session(probe)

    def outputs(self, feeds: Feeds, closed: Collection[int]) -> list[np.ndarray]:
        """Return the outputs with some blocks switched off, by their number in `residual_blocks`."""
        gates = {
            name: np.array(number not in closed, dtype) for number, (name, dtype) in enumerate(self._gates)
        }
        outputs: list[np.ndarray] = self._session.run(None, {**feeds, **gates})
        return outputs

    def effects(self, batches: Sequence[Feeds]) -> Effect:
        """Return a function that measures the relative error of all outputs on `batches`."""
        wanted = [self.outputs(feeds, ()) for feeds in track(batches, "original outputs")]

        def effect(closed: Collection[int]) -> float:
            pairs = [
                pair
                for feeds, targets in zip(batches, wanted, strict=True)
                for pair in zip(self.outputs(feeds, closed), targets, strict=True)
                if pair[1].dtype.kind == "f"
            ]
            noise = [np.square(got - want, dtype=np.float64).sum() for got, want in pairs]
            signal = [np.square(want, dtype=np.float64).sum() for _, want in pairs]
            return float(np.sqrt(np.mean(np.divide(noise, np.maximum(signal, 1e-30)))))

        return effect


def _search(
    blocks: Sequence[Block],
    allowed: Sequence[int],
    costs: Mapping[str, float],
    goal: float,
    effect: Effect,
    *,
    greedy: bool,
) -> tuple[dict[int, float], dict[int, float]] | None:
    """Return the dropped blocks, each with the effect of all up to it, and the effects of the other blocks.

    Returns None if all blocks together cost less than the goal.
    """
    dropped: dict[int, float] = {}
    effects: dict[int, float] = {}
    gone: set[str] = set()

    def cost(nodes: Collection[str]) -> float:
        return sum(costs.get(name, 0.0) for name in nodes)

    while cost(gone) < goal:
        saved = {number: cost(blocks[number].all_nodes - gone) for number in allowed}
        left = [number for number in allowed if saved[number] and blocks[number].end not in gone]
        if not left:
            return None
        if greedy or not effects:
            effects = {number: effect([*dropped, number]) for number in left}
        best = min(left, key=lambda number: effects[number] / saved[number])
        dropped[best] = effects.pop(best)
        gone |= blocks[best].all_nodes
    return dropped, effects


def _account(block: Block, effect: float) -> Change:
    weights = [value.const_value for value in initializers(block.nodes)]
    size = sum(weight.nbytes for weight in weights if weight is not None)
    text = f"dropped {len(block.layers)} layers; relative error of the outputs so far {effect:.3g}"
    return Change(block.name, text, size, 0)


def _reason(effect: float | None, allowed: bool) -> str:
    if not allowed:
        return Reason.LEFT_OUT
    if effect is None:
        return Reason.NO_GAIN.because("dropped with a block around it")
    return Reason.LOSS.because(f"dropping it would change the outputs by {effect:.3g}, relative")


def _operand(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None  # an addition leaves none out
    return value


def _shape(value: ir.Value, known: Mapping[str, TensorInfo]) -> tuple[int, ...] | None:
    found = known.get(value.name or "")
    return None if found is None else found.shape


def _terms(values: Iterable[ir.Value]) -> set[ir.Value]:
    """Return values and, where one is a sum, its terms and their terms, without constants."""
    terms: set[ir.Value] = set()
    stack: list[ir.Value | None] = [*values]
    while stack:
        term = stack.pop()
        if term is None or term in terms or term.const_value is not None:
            continue
        terms.add(term)
        maker = term.producer()
        if maker is not None and facts.of(maker).adds:
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
    """Return those of `nodes`, in order, whose results nothing but the branch of `addition` needs."""
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
