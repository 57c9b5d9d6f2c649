"""How much integers change what a model puts out: codes of each value, and weights of each layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx_ir as ir

from compress.diagnose.agreement import Array, agreement
from compress.diagnose.outputs import decided, read_outputs
from compress.diagnose.timing import Stopwatch
from compress.errors import PassError
from compress.graph import edit
from compress.graph.layers import Layer, layers
from compress.graph.session import session
from compress.progress import track

if TYPE_CHECKING:
    from compress.data import Feeds
    from compress.model import Model

Part = TypeVar("Part")
SWITCHES = "compress.switches"
"""Name of the input that tells what is rounded."""
SECONDS = 30.0
"""Time that measuring everything may take; beyond it neighbours are measured together."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The codes of a value: distance of two of them, and the code of zero."""

    scale: float
    zero: np.generic


class Switchboard:
    """A float model in which any set of values and weights can be rounded as integers would round them.

    Each is an If: as it is, or rounded. So the noise of any choice is one run of one session, and nothing is
    built anew.

    Args:
        model: a folded float model; it is not changed.
        values: the codes of values, by name; None for the range of each batch.
        weights: what weights are rounded to, by name of the layer and of the weight.
        batches: feeds to measure on.
    """

    def __init__(
        self,
        model: Model,
        values: Mapping[str, Codes | None],
        weights: Mapping[str, Mapping[str, Array]],
        batches: Sequence[Feeds],
    ) -> None:
        probe = decided(model.ir.clone())
        found: dict[str, list[Layer]] = {}
        for layer in layers(probe.graph):
            if layer.name in weights and layer.weight.name in weights[layer.name]:
                found.setdefault(layer.name, []).append(layer)  # a recurrent one has two weights
        made = (value for node in probe.graph for value in node.outputs)
        named = {value.name: value for value in (*probe.graph.inputs, *made)}
        known = {name: named[name] for name in values if name in named}  # what decides nothing is gone
        count = len(known) + len(found)
        switches = ir.Value(name=SWITCHES, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([count]))
        probe.graph.inputs.append(switches)
        self._places: dict[tuple[str, str], int] = {}
        for name, value in known.items():
            switch = _chosen(probe.graph, switches, self._place("value", name))
            _switch_value(probe.graph, value, values[name], switch)
        for name, parts in found.items():
            switch = _chosen(probe.graph, switches, self._place("weights", name))
            _switch_layer(parts, weights[name], switch)
        self._outputs = read_outputs(probe.graph)
        self._session = session(probe)
        self._batches = batches
        self._wanted = [self._run(feeds, ()) for feeds in batches]

    def noise(self, values: Collection[str] = (), weights: Collection[str] = ()) -> float:
        """Return noise power over signal power at the worst output if only these are rounded.

        It is infinite where the outputs cannot be compared, or are not finite.
        """
        wanted = iter(self._wanted)
        on = [("value", name) for name in values] + [("weights", name) for name in weights]
        places = [self._places[each] for each in on if each in self._places]
        if not places:
            return 0.0
        try:
            found = agreement(
                lambda feeds: self._run(feeds, places), lambda _: next(wanted), self._batches, self._outputs
            )
        except PassError:
            return math.inf
        return math.inf if found.decibels is None else 10 ** (-found.decibels / 10)

    def _place(self, kind: str, name: str) -> int:
        return self._places.setdefault((kind, name), len(self._places))

    def _run(self, feeds: Feeds, places: Sequence[int]) -> list[Array]:
        switches = np.zeros(len(self._places), bool)
        switches[list(places)] = True
        outputs: list[Array] = self._session.run(None, {**feeds, SWITCHES: switches})
        return outputs


def noise_of_each(
    board: Switchboard,
    values: Mapping[Part, Collection[str]],
    weights: Sequence[str],
    seconds: float = SECONDS,
) -> tuple[dict[Part, float], dict[str, float]]:
    """Return noise over signal power at the outputs of each group of values, and of each layer's weights.

    The noise of several is about the sum of theirs. Where they are too many for the time, neighbours are
    rounded together, and share their noise.

    Args:
        board: rounds them.
        values: groups of values; those of a group are always rounded together.
        weights: layers.
        seconds: time that it may take, about.
    """
    watch = Stopwatch()
    board.noise([name for group in values.values() for name in group], weights)
    possible = max(int(seconds / watch.seconds), 2)
    together = max(math.ceil((len(values) + len(weights)) / possible), 1)
    noise_of_values: dict[Part, float] = {}
    for keys in track(_parts(list(values), together), "noise of activations"):
        found = board.noise([name for key in keys for name in values[key]])
        noise_of_values |= dict.fromkeys(keys, found / len(keys))
    noise_of_weights: dict[str, float] = {}
    for names in track(_parts(weights, together), "noise of weights"):
        noise_of_weights |= dict.fromkeys(names, board.noise(weights=names) / len(names))
    return noise_of_values, noise_of_weights


def _parts(items: Sequence[Part], size: int) -> list[Sequence[Part]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


def _chosen(graph: ir.Graph, switches: ir.Value, number: int) -> ir.Node:
    """Return a node that reads one switch."""
    index = edit.add_initializer(graph, f"{SWITCHES}.{number}", np.array(number))
    node = ir.node("Gather", [switches, index], name=f"{SWITCHES}.read{number}")
    node.outputs[0].name = f"{SWITCHES}.read{number}"
    return node


def _switch_value(graph: ir.Graph, value: ir.Value, grid: Codes | None, switch: ir.Node) -> None:
    """Let all who read a value read an If in its place: as it is, or restored from codes."""
    name = value.name or ""
    owner = value.producer()
    uses = [(use.node, use.idx) for use in value.uses()]
    if grid is None:
        codes = ir.node("DynamicQuantizeLinear", [value], num_outputs=3, name=f"{name}.codes")
    else:
        numbers = {"step": np.float32(grid.scale), "zero": grid.zero}
        stored = [
            edit.add_initializer(graph, f"{name}.{what}", np.asarray(number))
            for what, number in numbers.items()
        ]
        codes = ir.node("QuantizeLinear", [value, *stored], name=f"{name}.codes")
    read = codes.outputs if grid is None else [codes.outputs[0], *stored]
    restored = ir.node("DequantizeLinear", read, name=f"{name}.restored")
    same = ir.node("Identity", [value], name=f"{name}.same")
    for place, output in enumerate((*codes.outputs, *restored.outputs, *same.outputs)):
        output.name = f"{name}.between{place}"
    for output in (*restored.outputs, *same.outputs):
        output.type = value.type or ir.TensorType(ir.DataType.FLOAT)
    choice = _choice(switch, [codes, restored], [same], f"{name}.choice")
    choice.outputs[0].type, choice.outputs[0].shape = value.type, value.shape
    if owner is not None:
        edit.insert_after(value, switch, choice)
    else:
        edit.insert_first(graph, switch, choice)
    for node, index in uses:
        edit.set_input(node, index, choice.outputs[0])


def _switch_layer(parts: Sequence[Layer], contents: Mapping[str, Array], switch: ir.Node) -> None:
    """Put an If in the place of a layer: as it is, or with its weights rounded."""
    node = parts[0].node
    for place, value in enumerate(node.outputs):
        value.name = value.name or f"{node.name}.omitted{place}"  # a branch gives all that the node could
    inputs = list(node.inputs)
    for layer in parts:
        content = contents[layer.weight.name or ""]
        if node.inputs[layer.index] is not layer.weight:  # a Transpose stands between them
            content = content.T
        name = f"{layer.weight.name}.rounded"
        inputs[layer.index] = edit.add_initializer(edit.graph_of(node), name, np.ascontiguousarray(content))
    branches = [_twin(node, inputs, "rounded")], [_twin(node, node.inputs, "plain")]
    choice = _choice(switch, *branches, f"{node.name}.choice")
    edit.replace_node(node, switch, choice)


def _choice(switch: ir.Node, on: Sequence[ir.Node], off: Sequence[ir.Node], name: str) -> ir.Node:
    """Return an If whose branches put out what the last of their nodes do."""
    bodies = {"then_branch": on, "else_branch": off}
    branches = {
        which: ir.AttrGraph(which, ir.Graph([], nodes[-1].outputs, nodes=nodes, name=f"{name}.{which}"))
        for which, nodes in bodies.items()
    }
    return ir.node("If", switch.outputs, branches, num_outputs=len(on[-1].outputs), name=name)


def _twin(node: ir.Node, inputs: Sequence[ir.Value | None], kind: str) -> ir.Node:
    """Return the node again, with other inputs."""
    count, name = len(node.outputs), f"{node.name}.{kind}"
    twin = ir.node(node.op_type, inputs, dict(node.attributes), num_outputs=count, name=name)
    for place, (value, before) in enumerate(zip(twin.outputs, node.outputs, strict=True)):
        value.name, value.type = f"{name}.{place}", before.type or ir.TensorType(ir.DataType.FLOAT)
    return twin
