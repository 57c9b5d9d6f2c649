"""Fractions of zeros: counted on data, and carried on through operators that keep them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compress.errors import ModelError, did_you_mean
from compress.graph import facts
from compress.graph.capture import activations

if TYPE_CHECKING:
    from compress.data import Feeds
    from compress.model import Model


def spread(model: ir.Model, zeros: Mapping[str, float]) -> dict[str, float]:
    """Return the given fractions of zeros, and those of values related to them.

    Fractions that are given stay. An operator that keeps zeros, or makes more, gives its output the
    fraction of its input. One that keeps them also gives its input the fraction of its output: zeros
    given for a pooled map stand for the map that was pooled, too.

    Raises:
        ModelError: a fraction is not between 0 and 1, or the graph has no value of that name.
    """
    _check(model, zeros)
    found = dict(zeros)
    if not found:
        return found
    nodes = list(model.graph.all_nodes())
    for ordered, backward in ((nodes, False), (nodes[::-1], True), (nodes, False)):
        for node in ordered:
            kept = facts.of(node).zeros in (("keeps",) if backward else ("keeps", "makes"))
            if not kept or not node.inputs or node.inputs[0] is None:
                continue
            source, result = node.inputs[0].name or "", node.outputs[0].name or ""
            known, wanted = (result, source) if backward else (source, result)
            if known in found:
                found.setdefault(wanted, found[known])
    return found


def counted(model: Model, batches: Iterable[Feeds]) -> dict[str, float]:
    """Return the fraction of zeros in every float activation that is multiplied, over some batches.

    Args:
        model: a model that runs.
        batches: feeds by input name.
    """
    names = {
        value.name or ""
        for node in model.graph
        if facts.of(node).contracts
        for value in node.inputs[:2]
        if value is not None and not value.is_initializer()
    }
    zeros: dict[str, list[int]] = {name: [0, 0] for name in sorted(names)}
    for values in activations(model.ir, zeros, batches):
        for name, array in values.items():
            if array.dtype.kind == "f":
                zeros[name][0] += array.size - int(np.count_nonzero(array))
                zeros[name][1] += array.size
    return {name: zero / size for name, (zero, size) in zeros.items() if size}


def _check(model: ir.Model, zeros: Mapping[str, float]) -> None:
    names = {value.name or "" for graph in model.graphs() for value in _values(graph)}
    for name, fraction in zeros.items():
        if not 0 <= fraction <= 1:
            raise ModelError(f"zeros of {name!r}: {fraction} is not a fraction between 0 and 1")
        if name not in names:
            raise ModelError(f"zeros of {name!r}: the graph has no such value{did_you_mean(name, names)}")


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]
