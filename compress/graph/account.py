"""The account of a pass: every weight that it left as it was has a record with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from compress.changes import Change, Reason
from compress.graph import edit, facts
from compress.graph.weights import StoredWeight, census, unchanged


def left_alone(
    before: ir.Model,
    after: ir.Model,
    changes: Sequence[Change],
    selects: Callable[..., bool],
    recorded: ir.Model | None = None,
) -> Iterator[Change]:
    """Yield a record for each weight that a pass left as it was and gave no reason for.

    Args:
        before: the model as the pass was given it.
        after: what the pass made of it.
        changes: the records of the pass.
        selects: tells from the names of a weight and its readers whether the pass was to work on it.
        recorded: the model whose names the records have, where `before` is the same in another form; a
            weight of one name in both has one reason.
    """
    told = {change.layer: change.skipped for change in changes if change.skipped}
    elsewhere = census(recorded) if recorded is not None else []
    known = {weight.name: told[name] for weight in elsewhere for name in weight.names if name in told}
    weights = census(before)
    left = unchanged(weights, census(after))
    types = {weight.tensor.dtype for weight in weights if weight not in left} | {ir.DataType.FLOAT}
    for weight in left:
        if weight.names.isdisjoint(told):
            reason = known.get(weight.name) or _reason(weight, before.graph, types, selects)
            yield Change(weight.name, bytes_before=weight.nbytes, bytes_after=weight.nbytes, skipped=reason)


def _reason(
    weight: StoredWeight, graph: ir.Graph, types: set[ir.DataType], selects: Callable[..., bool]
) -> str:
    """Return what most likely kept a pass from a weight, where the pass itself does not say."""
    if not selects(*weight.names):
        return Reason.LEFT_OUT
    if weight.is_codes:
        return Reason.CODES
    if weight.is_input:
        return Reason.INPUT
    if weight.is_output:
        return Reason.OUTPUT
    if weight.tensor.dtype not in types:
        return Reason.TYPE.because(str(weight.tensor.dtype).lower())
    if not weight.is_finite:
        return Reason.NOT_FINITE
    if not weight.read_in(graph):
        return Reason.BODY
    if weight.is_vector:
        return Reason.VECTOR
    if len(weight.readers) > 1 and all(map(facts.weights, weight.readers)):
        return Reason.SHARED
    operators = dict.fromkeys(node.op_type for node in weight.readers)
    return Reason.USE.because(f"by {', '.join(operators)}")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the bytes of a model's weights were compressed.

    Attributes:
        compressed: their share, of 1.
        reason: why most of the others were left, as a record says it; empty if there are none.
    """

    compressed: float
    reason: str


def coverage(
    original: ir.Model, final: ir.Model, changes: Sequence[Change], recorded: ir.Model | None = None
) -> Coverage:
    """Return the share of a model's weights that are gone, or have another type, size or content.

    Args:
        original: the model before the first pass.
        final: the model after the last.
        changes: the records of the passes that compress. Where they name no reason for new content of a
            weight, a pass that does not compress has given it, and the weight counts as left.
        recorded: the model whose names the records have, where `original` is the same in another form.
    """
    weights, after = census(original), census(final)
    called = {weight.name: weight.names for weight in census(recorded)} if recorded is not None else {}
    for weight in weights:
        weight.names |= called.get(weight.name, set())
    done = {change.layer for change in changes if change.action}
    same = set(unchanged(weights, after))
    sizes = {(weight.name, weight.tensor.dtype, weight.tensor.size) for weight in after}
    told = {change.layer: change.skipped for change in changes if change.skipped}
    reasons: Counter[str] = Counter()
    for weight in weights:
        stays = (weight.name, weight.tensor.dtype, weight.tensor.size) in sizes
        if weight in same or (stays and done.isdisjoint(weight.names)):
            reasons[next((told[name] for name in weight.names if name in told), "")] += weight.nbytes
    total = sum(weight.nbytes for weight in weights)
    left = sum(reasons.values())
    return Coverage(
        1 - left / total if total else 0.0, max(reasons, key=lambda each: reasons[each], default="")
    )


def names(model: ir.Model) -> set[str]:
    """Return the names of all nodes and weights, those of bodies included."""
    nodes = {node.name or "" for node in model.graph.all_nodes()}
    return nodes | {name for graph in model.graphs() for name in graph.initializers}


def is_same(one: ir.Model, other: ir.Model) -> bool:
    """Tell whether two models have the same nodes, values and constants, each under the same name."""
    graphs = [list(model.graphs()) for model in (one, other)]
    nodes = [list(model.graph.all_nodes()) for model in (one, other)]
    if len(graphs[0]) != len(graphs[1]) or len(nodes[0]) != len(nodes[1]):
        return False
    return all(map(_same_constants, *graphs)) and all(map(_same_node, *nodes))


def _same_node(one: ir.Node, other: ir.Node) -> bool:
    described = ([(value.type, value.shape) for value in node.outputs] for node in (one, other))
    return ir.to_proto(one) == ir.to_proto(other) and next(described) == next(described)


def _same_constants(one: ir.Graph, other: ir.Graph) -> bool:
    mine, theirs = (
        {name: value.const_value for name, value in graph.initializers.items()} for graph in (one, other)
    )
    return mine.keys() == theirs.keys() and all(edit.same_tensor(mine[name], theirs[name]) for name in mine)
