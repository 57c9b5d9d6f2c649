"""Batches that go through a network in parts, as many samples at a time as costs the least."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from compress.estimator.cost import cost
from compress.estimator.hardware import Profile
from compress.estimator.residency import Homes, homes
from compress.estimator.workload import LayerWork, appends
from compress.graph import batch, facts
from compress.graph.shapes import symbol
from compress.graph.tensor_info import TensorInfo

EACH_UP_TO, IN_OCTAVE = 16, 6
"""Every number of samples at a time is tried up to the first; then the second is how many in each octave."""


def in_parts(
    layers: Sequence[LayerWork], profile: Profile, outputs: frozenset[str], count: int
) -> tuple[tuple[LayerWork, ...], Homes]:
    """Return the layers as a batch runs through them, and where their tensors live.

    Fewer samples at a time keep more of what lies between layers on the chip, and weights that do not stay
    there are read once more for each part. The last part may be smaller, and is as cheap a sample as others:
    batches follow one another.

    Args:
        layers: the layers, each for the whole batch.
        profile: the hardware.
        outputs: names of the tensors that the graph returns.
        count: samples in the batch.
    """
    found = []
    for size in _sizes(layers, profile, count):
        divided = tuple(replace(layer, parts=count / size if count else 1.0) for layer in layers)
        found.append((divided, homes(divided, profile, outputs)))

    def joules(one: tuple[tuple[LayerWork, ...], Homes]) -> float:
        return math.fsum(cost(layer, profile, one[1])[0].energy_joules for layer in one[0])

    return min(found, key=joules) if len(found) > 1 else found[0]


def _sizes(layers: Sequence[LayerWork], profile: Profile, count: int) -> list[int]:
    """Return how many samples at a time are worth trying, the same for every batch that has so many."""
    whole = profile.executes == "onnxruntime"  # which computes each layer for all samples before the next
    if count <= 1 or whole or any(layer.steps > 1 for layer in layers):  # a loop's rounds are no samples
        return [count]
    steps = (round(EACH_UP_TO * 2 ** (step / IN_OCTAVE)) for step in range(1, IN_OCTAVE * count.bit_length()))
    return [*range(1, min(count, EACH_UP_TO) + 1), *(size for size in steps if size <= count)]


def samples(graph: ir.Graph, known: Mapping[str, TensorInfo]) -> int:
    """Return the samples in a batch: the size of the axis that bears its name, else of the first one.

    It is 1 where inputs and outputs do not agree, and where a cache of keys and values is read: requests that
    generate together take every step together, since the next one waits for its token.
    """
    if any(_reads_cache(node, known) for node in graph):
        return 1
    inputs = [value for value in graph.inputs if not value.is_initializer() and value.name in known]
    names = batch.symbols(each for each in inputs if each.shape is not None)
    sizes = set()
    for value in (*inputs, *graph.outputs):
        info = known.get(value.name or "")
        if info is not None and info.shape:
            named = (axis for axis, dim in enumerate(value.shape or ()) if symbol(dim) in names)
            sizes.add(info.shape[next(named, 0)])
    return sizes.pop() if len(sizes) == 1 else 1


def _reads_cache(node: ir.Node, known: Mapping[str, TensorInfo]) -> bool:
    """Tell whether a node reads keys and values that earlier runs of the graph left."""
    places = [0] if appends(node) else facts.of(node).past
    past = (node.inputs[place] for place in places if place < len(node.inputs))
    found = (known.get(value.name or "") for value in past if value is not None)
    return any(info is not None and info.elements for info in found)
