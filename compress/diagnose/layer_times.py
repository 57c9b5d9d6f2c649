"""Where the time of a run goes: processor time of every layer, read from the runtime's own profile."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from compress.data import Feeds
from compress.diagnose.timing import Stopwatch
from compress.graph.session import session

LEAST_RUNS, MOST_RUNS = 4, 8
"""Runs that are profiled; the least time of each kernel counts, and the first run warms up."""
SECONDS = 1.0
"""Time after which the fewest runs are enough."""
SUFFIX = "_kernel_time"
INTO_CODES = ("QuantizeLinear", "DynamicQuantizeLinear")
"""What makes codes of a value works for the layer that reads them."""


def layer_times(model: ir.Model, names: Collection[str], feeds: Feeds) -> dict[str, float]:
    """Return seconds of one run on one thread by layer; those of no layer stand under the empty name.

    Operators that belong to no layer count with the layer whose output they read, and those that make codes
    with the layer that reads these.

    Args:
        model: any variant of a float model; its layers and values keep their names.
        names: the layers.
        feeds: inputs of the run.

    Raises:
        ModelError: the runtime does not take the model.
    """
    taken, run = kernel_times(model, feeds)
    owners = _owners(run, _known(model.graph, frozenset(names)))
    times: dict[str, float] = defaultdict(float)
    for name, durations in taken.items():
        times[owners.get(name, "")] += min(durations[1:] or durations)
    return dict(times)


def kernel_times(model: ir.Model, feeds: Feeds) -> tuple[dict[str, list[float]], onnx.GraphProto]:
    """Return seconds of every run on one thread by node of the graph that the runtime runs, and the graph."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        running = session(model, threads=1, optimized_to=optimized, profiled_to=Path(folder, "profile"))
        watch = Stopwatch()
        for count in range(MOST_RUNS):
            if count < LEAST_RUNS or watch.seconds < SECONDS:
                running.run(None, feeds)
        events = json.loads(Path(running.end_profiling()).read_text())
        run = onnx.load(optimized, load_external_data=False).graph
    taken: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            taken[event["name"].removesuffix(SUFFIX)].append(event["dur"] / 1e6)
    return taken, run


def _known(graph: ir.Graph, names: frozenset[str]) -> dict[str, str]:
    """Return, by the name of a node or value of the model, the layer that it belongs to."""
    owners: dict[str, str] = {}
    for node in graph:
        before = (owners.get(value.name or "", "") for value in node.inputs if value is not None)
        owner = next((each for each in reversed([*before]) if each), "")
        owner = (node.name or "") if node.name in names else owner
        owners |= dict.fromkeys((value.name or "" for value in node.outputs), owner)
        owners[node.name or ""] = owner
    for node in reversed(graph):
        if node.op_type in INTO_CODES:
            readers = (owners.get(reader.name or "", "") for reader in _layers_behind(node))
            owners[node.name or ""] = next(filter(None, readers), owners[node.name or ""])
    return owners


def _layers_behind(node: ir.Node) -> list[ir.Node]:
    """Return the nodes that read what a quantizer put out, past the node that restores floats."""
    readers = [reader for value in node.outputs for reader in value.consumers()]
    return [
        each
        for reader in readers
        for each in (reader.outputs[0].consumers() if reader.op_type == "DequantizeLinear" else [reader])
    ]


def _owners(run: onnx.GraphProto, known: Mapping[str, str]) -> dict[str, str]:
    """Return the layer of every node that the runtime runs, whose names begin with known ones."""
    owners: dict[str, str] = {}
    made: dict[str, str] = {}
    for node in run.node:
        owner = next((known[name] for name in _origins(node) if name in known), None)
        if owner is None:
            before = (made[name] for name in node.input if made.get(name))
            owner = next(before, "")
        owners[node.name] = owner
        made |= dict.fromkeys(node.output, owner)
    return owners


def _origins(node: onnx.NodeProto) -> list[str]:
    """Return the names in the model that a node of the optimized graph may come from, the surest first."""
    plain = [re.sub(r"(_token_\d+|_nchwc|/duplicated)+$", "", name) for name in (node.name, *node.output)]
    return [node.name, *node.output, *plain]
