"""How much each layer's integers change what a model puts out, each measured on its own."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from compress.diagnose.agreement import Array, agreement
from compress.diagnose.outputs import decided, read_outputs
from compress.errors import PassError
from compress.graph import edit
from compress.graph.layers import Layer, layers
from compress.graph.session import session
from compress.numerics.affine import quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis
from compress.progress import track

if TYPE_CHECKING:
    from compress.data import Feeds
    from compress.model import Model

SWITCHES = "compress.switches"
"""Name of the input that tells which layers are rounded."""
SECONDS = 60.0
"""Time that measuring all layers may take; beyond it neighbours are measured together."""


class Switchboard:
    """A float model in which any set of layers can be rounded as integers would round them.

    Each layer is an If: as it is, or with its input rounded to 8 bits (one range for the whole tensor, that
    of the batch) and its weight to a number of bits per output channel. So the noise of any choice of layers
    is one run of one session, and nothing is built anew.

    Args:
        model: a folded float model; it is not changed.
        names: nodes of layers with a weight of their own.
        batches: feeds to measure on.
        bits: of the weights.
    """

    def __init__(self, model: Model, names: Sequence[str], batches: Sequence[Feeds], bits: int = 8) -> None:
        found: dict[str, list[Layer]] = {name: [] for name in names}
        probe = decided(model.ir.clone())
        for layer in layers(probe.graph):
            if layer.name in found:
                found[layer.name].append(layer)  # a recurrent one has two weights
        found = {name: weights for name, weights in found.items() if weights}  # what decides nothing is gone
        switches = ir.Value(name=SWITCHES, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([len(found)]))
        probe.graph.inputs.append(switches)
        for number, weights in enumerate(found.values()):
            _switch(weights, switches, number, bits)
        self._places = {name: number for number, name in enumerate(found)}
        self._outputs = read_outputs(probe.graph)
        self._session = session(probe)
        self._batches = batches
        self._wanted = [self._run(feeds, ()) for feeds in batches]

    def noise(self, rounded: Collection[str]) -> float:
        """Return noise power over signal power at the worst output if only some layers are rounded.

        It is infinite where the outputs cannot be compared, or are not finite.
        """
        wanted = iter(self._wanted)
        try:
            found = agreement(
                lambda feeds: self._run(feeds, rounded), lambda _: next(wanted), self._batches, self._outputs
            )
        except PassError:
            return math.inf
        return math.inf if found.decibels is None else 10 ** (-found.decibels / 10)

    def _run(self, feeds: Feeds, rounded: Collection[str]) -> list[Array]:
        switches = np.zeros(len(self._places), bool)
        switches[[self._places[name] for name in rounded if name in self._places]] = True
        outputs: list[Array] = self._session.run(None, {**feeds, SWITCHES: switches})
        return outputs


def output_noise(
    model: Model, names: Sequence[str], batches: Sequence[Feeds], bits: int = 8, seconds: float = SECONDS
) -> dict[str, float]:
    """Return noise power over signal power at the outputs if one layer alone runs in integers, by name.

    The noise of several layers is about the sum of theirs. Where the layers are too many for the time,
    neighbours are rounded together, and share their noise.

    Args:
        model: a folded float model; it is not changed.
        names: nodes of layers with a weight of their own; one that decides no output adds no noise.
        batches: feeds to measure on.
        bits: of the weights.
        seconds: time that it may take, about.
    """
    board = Switchboard(model, names, batches, bits)
    start = time.perf_counter()
    board.noise(names)
    possible = max(int(seconds / (time.perf_counter() - start)), 1)
    together = max(math.ceil(len(names) / possible), 1)
    parts = [names[first : first + together] for first in range(0, len(names), together)]
    noise: dict[str, float] = {}
    for part in track(parts, "noise of layers", total=len(parts)):
        noise |= dict.fromkeys(part, board.noise(part) / len(part))
    return noise


def _switch(weights: Sequence[Layer], switches: ir.Value, number: int, bits: int) -> None:
    """Put an If in the place of the layer with these weights: rounded if the switch of its number is on."""
    node = weights[0].node
    graph = edit.graph_of(node)
    for place, value in enumerate(node.outputs):
        value.name = value.name or f"{node.name}.omitted{place}"  # a branch gives all that the node could
    index = edit.add_initializer(graph, f"{node.name}.switch", np.array(number))
    switch = ir.node("Gather", [switches, index], name=f"{node.name}.switched")
    switch.outputs[0].name = f"{node.name}.switched"
    plain = _twin(node, node.inputs, "plain")
    branches = {"then_branch": _branch(*_rounded(weights, bits)), "else_branch": _branch(plain)}
    attributes = {name: ir.AttrGraph(name, branch) for name, branch in branches.items()}
    count = len(node.outputs)
    choice = ir.node("If", switch.outputs, attributes, num_outputs=count, name=f"{node.name}.choice")
    edit.replace_node(node, switch, choice)


def _rounded(weights: Sequence[Layer], bits: int) -> list[ir.Node]:
    """Return the nodes that compute a layer with its input and its weights rounded."""
    node = weights[0].node
    codes = ir.node("DynamicQuantizeLinear", [node.inputs[0]], num_outputs=3, name=f"{node.name}.codes")
    restored = ir.node("DequantizeLinear", codes.outputs, name=f"{node.name}.restored")
    for place, value in enumerate((*codes.outputs, *restored.outputs)):
        value.name = f"{node.name}.between{place}"
    inputs = [restored.outputs[0], *node.inputs[1:]]
    for layer in weights:
        integers = IntegerFormat(bits, PerAxis(layer.out_axis), narrow=True)
        content = quantize(torch.from_numpy(layer.array.copy()), integers).dequantize()
        if node.inputs[layer.index] is not layer.weight:  # a Transpose stands between them
            content = content.T
        name = f"{layer.weight.name}.rounded"
        inputs[layer.index] = edit.add_initializer(edit.graph_of(node), name, content.numpy())
    return [codes, restored, _twin(node, inputs, "rounded")]


def _twin(node: ir.Node, inputs: Sequence[ir.Value | None], kind: str) -> ir.Node:
    """Return the node again, with other inputs."""
    count, name = len(node.outputs), f"{node.name}.{kind}"
    twin = ir.node(node.op_type, inputs, dict(node.attributes), num_outputs=count, name=name)
    for place, (value, before) in enumerate(zip(twin.outputs, node.outputs, strict=True)):
        value.name, value.type = f"{name}.{place}", before.type or ir.TensorType(ir.DataType.FLOAT)
    return twin


def _branch(*nodes: ir.Node) -> ir.Graph:
    """Return a body that puts out what the last of its nodes does."""
    return ir.Graph([], nodes[-1].outputs, nodes=nodes, name=f"{nodes[-1].name}.branch")
