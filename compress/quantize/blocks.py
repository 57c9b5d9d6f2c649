"""Blocks of a graph: runs of nodes between which one value carries all that its layers have computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx_ir as ir

from compress.graph.block import constants, reads
from compress.graph.layers import Layer

MOST_LAYERS = 12
"""Layers of the largest block; a larger one, as the whole of a U-Net is, falls apart into single layers."""
TOGETHER = 3
"""Single layers in a row that make one block, as the three of an inverted bottleneck without a shortcut."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of nodes.

    Attributes:
        layers: its layers, of those that were asked for.
        inputs: names of the values that it reads and does not make, constants left out.
        outputs: names of the values that it makes for later nodes or for the caller of the graph.
        spent: names of the values that no later block reads.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    spent: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the weights."""
        return tuple(dict.fromkeys(layer.weight.name or "" for layer in self.layers))


def blocks(graph: ir.Graph, layers: Sequence[Layer]) -> list[Block]:
    """Return the blocks that make up a graph, in its order; some have no layer.

    A block ends where a single value of those that depend on a layer is still to be read: behind the addition
    of a residual block, say. Single layers in a row go together, and nodes without a layer go with the block
    before them.

    Args:
        graph: the graph; bodies of control flow are not cut.
        layers: the layers that count.
    """
    nodes = list(graph)
    last = {value: place for place, node in enumerate(nodes) for value in reads(node)}
    held: dict[ir.Node, list[Layer]] = {}
    for layer in layers:
        held.setdefault(layer.node, []).append(layer)
    counts = [len(held.get(node, [])) for node in nodes]
    parts = _together(list(_small(_parts(nodes, last, counts), counts)), counts)
    constant, found = constants(graph), []
    for part in parts:
        inside = nodes[part.start : part.stop]
        made = {value: None for node in inside for value in node.outputs if value not in constant}
        inputs = {
            value: None
            for node in inside
            for value in reads(node)
            if value.graph is graph and value not in constant and value not in made
        }
        outputs = [value for value in made if last.get(value, -1) >= part.stop or value.is_graph_output()]
        spent = [value for value in (*inputs, *outputs) if last.get(value, -1) < part.stop]
        owned = tuple(layer for node in inside for layer in held.get(node, ()))
        found.append(Block(owned, *(_names(values) for values in (inputs, outputs, spent))))
    return found


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(value.name or "" for value in values)


def _parts(nodes: Sequence[ir.Node], last: dict[ir.Value, int], counts: Sequence[int]) -> list[range]:
    """Return the runs of places between which one value is carried; all but the first have a layer."""
    carried: set[ir.Value] = set()
    touched: set[ir.Value] = set()
    ends = []
    for place, node in enumerate(nodes):
        if counts[place] or any(value in touched for value in reads(node)):
            touched.update(node.outputs)
            carried.update(value for value in node.outputs if value in last)
        carried = {value for value in carried if last[value] > place}
        if len(carried) <= 1:
            ends.append(place + 1)
    parts: list[range] = []
    for start, end in pairwise([0, *ends]):
        if parts and not sum(counts[start:end]):
            parts[-1] = range(parts[-1].start, end)
        else:
            parts.append(range(start, end))
    return parts


def _small(parts: Iterable[range], counts: Sequence[int]) -> Iterator[range]:
    """Yield the parts; those with too many layers fall apart before each node with one."""
    for part in parts:
        layers = [place for place in part if counts[place]]
        inner = layers[1:] if sum(counts[part.start : part.stop]) > MOST_LAYERS else []
        yield from (range(*ends) for ends in pairwise([part.start, *inner, part.stop]))


def _together(parts: Sequence[range], counts: Sequence[int]) -> list[range]:
    """Return the parts, with up to `TOGETHER` of those with one layer that follow each other made one."""
    joined: list[range] = []
    row = 0
    for part in parts:
        single = sum(counts[part.start : part.stop]) == 1
        if single and 0 < row < TOGETHER:
            joined[-1] = range(joined[-1].start, part.stop)
            row += 1
        else:
            joined.append(part)
            row = int(single)
    return joined
