"""Low-rank factorization: one linear layer becomes two thinner ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch

from compress.changes import Change, Reason
from compress.graph import edit
from compress.graph.layers import Layer
from compress.graph.linear import Array, linear_layers, matrix, stored_like
from compress.graph.moments import second_moments
from compress.model import Model
from compress.numerics.lowrank import Spectrum, rank_for_error, ranks_for_size, spectrum


def factorize(
    model: Model,
    selects: Callable[..., bool],
    *,
    ratio: float,
    error: float | None,
    importance: Literal["activation", "weight"],
) -> list[Change]:
    """Replace linear layers by two thinner ones in a row, in place.

    Args:
        model: the model; ``activation`` reads its calibration data.
        selects: tells from the names of node and weight whether a layer is worked on.
        ratio: fraction of the selected layers' weights that is removed, over all of them together.
        error: largest relative error of each layer's outputs; replaces the ratio.
        importance: whether errors are measured at the outputs on calibration data, or at the weights.

    Raises:
        DataError: there are no calibration data where they are read.
    """
    chosen: list[Layer] = []
    changes = []
    for layer in linear_layers(model.graph):
        if not selects(*layer.names):
            changes.append(Change(layer.name, skipped=Reason.LEFT_OUT))
        elif layer.node.attributes.get_int("group", 1) != 1:
            changes.append(Change(layer.name, skipped=Reason.USE.because("it has groups")))
        else:
            chosen.append(layer)
    moments = second_moments(model.ir, model.batches(), chosen) if importance == "activation" else {}
    spectra = {
        layer.name: spectrum(
            torch.from_numpy(np.array(matrix(layer, layer.array)[0])),
            moments[layer.name].matrix() if moments else None,
        )
        for layer in chosen
    }
    ranks = _ranks(spectra, ratio, error)
    return [*(_factor(layer, spectra[layer.name], ranks[layer.name]) for layer in chosen), *changes]


def _ranks(spectra: Mapping[str, Spectrum], ratio: float, error: float | None) -> dict[str, int | None]:
    """Return the rank of each layer by name; None where two factors would be larger than the layer."""
    if error is None:
        room = (1 - ratio) * sum(found.dense for found in spectra.values())
        return dict(zip(spectra, ranks_for_size(list(spectra.values()), room), strict=True))
    ranks = {name: rank_for_error(found, error) for name, found in spectra.items()}
    return {name: r if r * spectra[name].cost < spectra[name].dense else None for name, r in ranks.items()}


def _factor(layer: Layer, found: Spectrum, rank: int | None) -> Change:
    if rank is None:
        return Change(
            layer.name, skipped=Reason.SMALL.because("two factors would take more bytes, or lose too much")
        )
    left, right = found.left[:, :rank], found.right[:rank]
    full = found.left @ found.right
    error = float((full - left @ right).norm() / full.norm().clamp(min=1e-30))
    before = layer.nbytes
    scale = (
        right.norm(dim=1) / left.norm(dim=0).clamp(min=1e-30)
    ).sqrt()  # columns of left and rows of right get equal norms
    _replace(layer, (left * scale).numpy(), (right / scale[:, None]).numpy())
    after = before * rank * found.cost // found.dense
    return Change(layer.name, f"rank {rank} of {len(found.energies)}", before, after, error)


def _replace(layer: Layer, left: Array, right: Array) -> None:
    """Insert a node with the weight `left` before the layer's own node, whose weight becomes `right`."""
    node, name = layer.node, layer.weight.name or ""
    rank = right.shape[0]
    if node.op_type == "Conv":
        kernel = layer.array.shape[2:]
        first = np.moveaxis(left.T.reshape(rank, *kernel, -1), -1, 1)
        second = right.T.reshape(-1, rank, *[1] * len(kernel))
        attributes = {key: node.attributes.pop(key) for key in tuple(node.attributes)}
    else:
        first, second, attributes = left, right.T if node.attributes.get_int("transB", 0) else right, {}
    weights = []
    for part, content in (("left", first), ("right", second)):
        weights.append(edit.add_initializer(edit.graph_of(node), f"{name}.{part}", content))
        edit.set_initializer(weights[-1], stored_like(layer.weight, content))
    operator = "Conv" if node.op_type == "Conv" else "MatMul"
    thin = ir.node(operator, [node.inputs[0], weights[0]], attributes, name=f"{layer.name}.left")
    thin.outputs[0].name = f"{node.outputs[0].name}.left"
    thin.outputs[0].type = node.outputs[0].type
    edit.insert_before(node, thin)
    edit.set_input(node, 0, thin.outputs[0])
    edit.set_input(node, 1, weights[1])
