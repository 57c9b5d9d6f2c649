"""Repair of a pruned graph: layers are refitted to their former outputs by least squares, without labels."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from compress.graph import edit
from compress.graph.capture import activations
from compress.graph.layers import Layer, array
from compress.graph.linear import (
    Array,
    channel_axis,
    from_matrix,
    in_type,
    input_rows,
    linear_layers,
    matrix,
    output_rows,
    source,
    store,
)
from compress.graph.walks import bias_place, depths
from compress.model import Model
from compress.numerics.regression import LeastSquares, cross_validated
from compress.progress import track
from compress.prune.axes import Mask
from compress.prune.coupling import Removal

ONE_BATCH = 0.1
"""Damping if there is only one batch, so that there is none to validate on."""


def repair(model: Model, reference: ir.Model, removal: Removal, damping: float | None = None) -> None:
    """Refit the linear layers that lost inputs, and every linear layer after them, in place.

    Layers are fitted in the order of the graph, so that each is fitted to the inputs that the repaired
    layers before it give, with the reference's outputs as targets (He et al., Channel Pruning for
    Accelerating Very Deep Neural Networks, ICCV 2017). Depthwise convolutions keep their
    weights, because no other channel can compensate.

    Args:
        model: the pruned model; its calibration data are read once for each stage of layers.
        reference: the model before pruning.
        removal: what pruning left of the reference.
        damping: see `LeastSquares.solve`. With None it is chosen for each layer by cross-validation, and a
            layer that no fit improves on unseen batches keeps its weights.

    Raises:
        DataError: there are no calibration data.
    """
    stages = _stages(model.graph, removal.consumers)
    for number, stage in enumerate(stages):
        fits = [
            _Fit(layer, removal.kept[layer.node.outputs[0].name or ""][channel_axis(layer)])
            for layer in stage
        ]
        ours, theirs = itertools.tee(model.batches())
        pairs = zip(
            activations(model.ir, [fit.source for fit in fits], ours),
            activations(reference, [fit.target for fit in fits], theirs),
            strict=True,
        )
        for inputs, targets in track(pairs, f"repair, stage {number + 1} of {len(stages)}"):
            for fit in fits:
                fit.observe(inputs[fit.source], targets[fit.target])
        for fit in fits:
            fit.solve(damping)


def _stages(graph: ir.Graph, changed: Collection[int]) -> list[list[Layer]]:
    """Return the layers whose inputs have changed, in lists of layers that can be fitted together.

    Args:
        graph: the pruned graph.
        changed: places of the nodes that sum over fewer channels than before.
    """
    fittable = {layer.node: layer for layer in linear_layers(graph) if layer.array.shape[1] > 1}
    first = {node for place, node in enumerate(graph) if place in changed}
    stages: dict[int, list[Layer]] = {}
    for node, depth in depths(graph, lambda node, depth: node in first or depth > 0).items():
        if node in fittable:
            stages.setdefault(depth, []).append(fittable[node])
    return [stages[level] for level in sorted(stages)]


class _Fit:
    """One layer being fitted.

    Attributes:
        source: name of its input.
        target: name of its output, which the reference computes under the same name.
    """

    def __init__(self, layer: Layer, kept: Mask) -> None:
        self.layer = layer
        self.source = source(layer)
        self.target = layer.node.outputs[0].name or ""
        self._kept = kept
        self._prior = matrix(layer, layer.array)
        self._halves = [LeastSquares(*self._prior.shape) for _ in range(2)]
        self._random = np.random.default_rng(0)

    def observe(self, inputs: Array, targets: Array) -> None:
        """Add one batch of inputs and of the reference's outputs; batches go to the two halves in turn."""
        features, chosen = input_rows(self.layer, inputs, self._random)
        rows = output_rows(self.layer, targets, chosen)[:, self._kept]
        self._halves[0].observe(features, np.moveaxis(rows.reshape(len(rows), len(features), -1), 1, 0))
        self._halves.reverse()

    def solve(self, damping: float | None) -> None:
        """Store the fitted weights, and the bias if the layer can have one."""
        place = bias_place(self.layer.node.outputs[0], self.layer, free=True)
        bias = self._bias(place)
        within = bias if place and place[0] is self.layer.node else np.zeros_like(bias)  # what the target has
        whole = self._halves[0] + self._halves[1]
        intercept = place is not None
        if damping is not None or not all(half.samples for half in self._halves):
            weights, offset = whole.solve(self._prior, damping or ONE_BATCH, intercept=intercept)
        else:
            fitted = cross_validated(self._halves, self._prior, within, intercept=intercept)
            if fitted is None:
                return
            weights, offset = fitted
        store(self.layer.weight, from_matrix(self.layer, weights))
        if place is not None:
            _store_bias(*place, (offset + bias - within).reshape(-1), self.layer.dtype)

    def _bias(self, place: tuple[ir.Node, int] | None) -> Array:
        """Return the current bias, shape [groups, outputs]; zeros if there is none."""
        groups, _, outputs = self._prior.shape
        inputs = place[0].inputs if place else ()
        value = inputs[place[1]] if place and place[1] < len(inputs) else None
        return np.zeros((groups, outputs)) if value is None else array(value).reshape(groups, outputs)


def _store_bias(adder: ir.Node, index: int, offset: Array, dtype: ir.DataType) -> None:
    """Store a bias, under a new name if there was none or other nodes read it."""
    old = adder.inputs[index] if index < len(adder.inputs) else None
    if old is not None and old.const_value is not None and len(old.uses()) == 1:
        store(old, offset.reshape(old.const_value.shape.numpy()))
    else:
        name, content = f"{adder.name}.bias", in_type(offset, dtype)
        edit.set_input(adder, index, edit.add_initializer(edit.graph_of(adder), name, content))
