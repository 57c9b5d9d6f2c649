"""Cross-layer equalization: neighbouring layers get the same range of weights in each channel.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import torch

from compress.changes import Change, Reason
from compress.errors import PassError
from compress.graph.fold import fold
from compress.graph.layers import Layer
from compress.graph.linear import Array, linear_layers
from compress.model import Model
from compress.numerics.equalize import cross_layer_scales
from compress.quantize.scaling import (
    Source,
    along,
    input_axis,
    is_depthwise,
    multiply,
    source,
    takes_scales,
)

SWEEPS = 20
"""Largest number of sweeps over all chains of layers."""
SETTLED = 1e-3
"""Largest relative change of a scale at which the sweeps end."""


def equalize(model: Model, chosen: Callable[..., bool]) -> list[Change]:
    """Fold a model and equalize every chain of chosen layers, in place.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a layer's node and weight.

    Raises:
        PassError: a weight is not finite; the message names the layer.
    """
    fold(model.ir)
    own = {layer.node: layer for layer in linear_layers(model.graph) if chosen(*layer.names)}
    sources = {node: source([layer], own) for node, layer in own.items() if takes_scales(layer)}
    links = {node: found for node, found in sources.items() if found is not None and found.node in own}
    totals = _search(own, links)
    changes = []
    for node, scales in totals.items():
        if np.allclose(scales, 1, rtol=SETTLED):
            reason = Reason.NO_GAIN.because("its ranges are those of the next layer already")
            changes.append(Change(links[node].node.name or "", skipped=reason))
            continue
        links[node].divide(model.graph, scales)
        multiply(own[node], scales)
        done = f"output channels divided by {scales.min():.3g} to {scales.max():.3g}"
        changes.append(Change(links[node].node.name or "", done))
    linked = {found.node for found in links.values()}
    changes += [
        Change(
            layer.name,
            skipped=Reason.USE.because(
                "no single layer follows it through operators that keep scales, such as ReLU"
            ),
        )
        for node, layer in own.items()
        if node not in linked
    ]
    return changes


def _search(own: Mapping[ir.Node, Layer], links: Mapping[ir.Node, Source]) -> dict[ir.Node, Array]:
    """Return the factors on the input channels of each layer that give neighbours equal ranges.

    Raises:
        PassError: a weight is not finite; the message names the layer.
    """
    weights = {node: np.abs(own[node].array) for node in own}
    channels = {node: own[node].array.shape[input_axis(own[node])] for node in links}
    totals = {node: np.ones(count, np.float32) for node, count in channels.items()}
    feeding = {found.node for found in links.values()}
    for _ in range(SWEEPS):
        moved = 0.0
        for last in links:
            if is_depthwise(own[last]) and last in feeding:
                continue  # it is in the middle of a chain
            readers = [last]
            while is_depthwise(own[first := links[readers[0]].node]) and first in links:
                readers.insert(0, first)
            ranges = [_largest(weights[first], own[first].out_axis)]
            ranges += [_largest(weights[each], input_axis(own[each])) for each in readers]
            try:
                found = cross_layer_scales(*map(torch.from_numpy, ranges))
            except ValueError as error:
                raise PassError(f"layers from {first.name!r} to {last.name!r}: {error}") from error
            for each, scales in zip(readers, (each.numpy() for each in found), strict=True):
                before = own[links[each].node]
                weights[before.node] /= along(scales, before.out_axis, before.array.ndim)
                weights[each] *= along(scales, input_axis(own[each]), own[each].array.ndim)
                totals[each] *= scales
                moved = max(moved, float(np.abs(scales - 1).max()))
        if moved < SETTLED:
            break
    return totals


def _largest(magnitudes: Array, axis: int) -> Array:
    others = tuple(each for each in range(magnitudes.ndim) if each != axis)
    largest: Array = magnitudes.max(axis=others)
    return largest
