"""How often the bodies of loops count: as the graph states it, or as runs on data show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compress.graph import batch
from compress.graph.edit import bodies
from compress.graph.rounds import Known, Rounds, name_of
from compress.graph.session import RUNTIME_ERRORS, session
from compress.graph.shapes import lay_out
from compress.results import LoopScore

if TYPE_CHECKING:
    from compress.data import Data, Feeds

_WHY: Mapping[Known, str] = {
    "stated": "the graph and the shapes state it",
    "most": "it may run less often, as the data decide; this is the most",
    "measured": "the data decide it; this is the mean of runs on them",
    "assumed": "the data decide it, and it was not measured",
}
BATCHES = 4
"""Batches of which one sample each is run, to count the rounds of Loops."""
_COUNTER = "compress_runs"


def scores(rounds: Mapping[ir.Node, Rounds]) -> dict[str, LoopScore]:
    """Return how often each loop counts and why, as a run's results store it."""
    return {
        name_of(node): LoopScore(op_type=node.op_type, bodies=each.count, why=_WHY[each.known])
        for node, each in rounds.items()
    }


def on_data(
    model: ir.Model, data: Data | None, shapes: Mapping[str, Sequence[int] | int] | None
) -> dict[str, int]:
    """Return how often Loops run on some data, by name; none where the graph states it or nothing runs.

    Args:
        model: the model, local functions inlined.
        data: the data, of which single samples of some batches are taken.
        shapes: as for `compress.estimate`.
    """
    if data is None or not any(
        each.known in ("most", "assumed") for each in lay_out(model, shapes).rounds.values()
    ):
        return {}
    inputs = model.graph.inputs
    try:
        run, batches = session(model).run, list(islice(data.feeds(inputs), BATCHES))
        axes = batch.find(lambda feeds: run(None, feeds), inputs, batches[:1], data.batch_axis)
        return measured(model, map(axes.sample, batches))
    except RUNTIME_ERRORS:
        return {}


def measured(model: ir.Model, batches: Iterable[Feeds]) -> dict[str, int]:
    """Return how often the body of each Loop runs each time that the Loop is reached: the mean over batches.

    Args:
        model: a model that runs, local functions inlined; it is not changed.
        batches: feeds by input name.
    """
    probe = model.clone()
    totals = _count_runs(probe.graph)
    probe.graph.outputs[:] = totals.values()
    run = session(probe).run
    runs: Counter[str] = Counter()
    for feeds in batches:
        numbers = (int(each) for each in run(None, feeds))
        runs.update(dict(zip(totals, numbers, strict=True)))
        runs[""] += 1
    return {
        name: round(runs[name] / runs[around])
        for name, around in _around(model.graph)
        if runs[around] and name in totals
    }


def _around(graph: ir.Graph, outer: str = "") -> Iterator[tuple[str, str]]:
    """Yield each Loop and Scan with the one that it is in; "" stands for the graph."""
    for node in graph:
        name = name_of(node) if _is_loop(node) else outer
        if name != outer:
            yield name, outer
        for body in bodies(node):
            yield from _around(body, name)


def _is_loop(node: ir.Node) -> bool:
    return not node.domain and node.op_type in ("Loop", "Scan")


def _count_runs(graph: ir.Graph) -> dict[str, ir.Value]:
    """Let a graph count how often the bodies in it run; return the numbers by the name of the loop."""
    totals: dict[str, ir.Value] = {}
    for node in list(graph):
        if _is_loop(node):
            totals |= _total_of_rounds(graph, node)
        elif not node.domain and node.op_type == "If":
            totals |= _of_branch(node)
    return totals


def _total_of_rounds(graph: ir.Graph, node: ir.Node) -> dict[str, ir.Value]:
    """Collect the counts of every round, and add them up."""
    (body,) = bodies(node)
    counts = {name_of(node): _constant(body, 1), **_count_runs(body)}
    body.outputs.extend(counts.values())
    totals = {}
    for name, collected in zip(counts, _more_outputs(node, len(counts)), strict=True):
        total = ir.node("ReduceSum", [collected], {"keepdims": 0})
        _name(total.outputs[0])
        graph.insert_after(node, total)
        totals[name] = total.outputs[0]
    axes = node.attributes.get("scan_output_axes")
    if axes is not None:
        node.attributes.add(ir.AttrInt64s(axes.name, [*axes.as_ints(), *[0] * len(counts)]))
    return totals


def _of_branch(node: ir.Node) -> dict[str, ir.Value]:
    """Pass the counts of both branches on; a loop that a branch lacks did not run there."""
    branches = {id(body): (body, _count_runs(body)) for body in bodies(node)}
    names = list(dict.fromkeys(name for _, counts in branches.values() for name in counts))
    for body, counts in branches.values():
        body.outputs.extend(counts[name] if name in counts else _constant(body, 0) for name in names)
    return dict(zip(names, _more_outputs(node, len(names)), strict=True))


def _more_outputs(node: ir.Node, count: int) -> list[ir.Value]:
    before = len(node.outputs)
    node.resize_outputs(before + count)
    added = list(node.outputs[before:])
    for value in added:
        _name(value)
    return added


def _constant(body: ir.Graph, number: int) -> ir.Value:
    """Add a node to a body that makes a number."""
    made = ir.node("Constant", [], {"value": ir.tensor(np.array(number, np.int64))})
    _name(made.outputs[0])
    body.append(made)
    return made.outputs[0]


def _name(value: ir.Value) -> None:
    """Give a number a name that the model does not use."""
    value.name = f"{_COUNTER}_{id(value)}"
    value.dtype, value.shape = ir.DataType.INT64, ir.Shape([])
