"""Unstructured and 2:4 sparsity: individual weights of linear layers become zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch

from compress.changes import Change, Reason
from compress.graph.layers import Layer
from compress.graph.linear import from_matrix, linear_layers, matrix, store
from compress.graph.moments import mean_squares, second_moments
from compress.model import Model
from compress.numerics.sparsity import keep_largest, sparsegpt, wanda

Pattern: TypeAlias = Literal["unstructured", "2:4"]
"""Where zeros may be: anywhere, or two in every four consecutive input channels."""
Solver: TypeAlias = Literal["magnitude", "wanda", "sparsegpt"]
"""Which weights become zero; see `compress.numerics.sparsity`."""


def sparsify(
    model: Model, selects: Callable[..., bool], *, ratio: float, pattern: Pattern, solver: Solver
) -> list[Change]:
    """Set the least important weights of linear layers to zero, in place.

    Args:
        model: the model; all solvers but ``magnitude`` read its calibration data.
        selects: tells from the names of node and weight whether a layer is worked on.
        ratio: fraction of each layer's weights that become zero.
        pattern: where zeros may be.
        solver: which weights become zero.

    Raises:
        DataError: there are no calibration data where they are read.
    """
    chosen: list[Layer] = []
    changes = []
    for layer in linear_layers(model.graph):
        reason = _reason_to_stay(layer, pattern) if selects(*layer.names) else Reason.LEFT_OUT
        if reason:
            changes.append(Change(layer.name, skipped=reason))
        else:
            chosen.append(layer)
    squares = mean_squares(model.ir, model.batches(), chosen) if solver == "wanda" else {}
    moments = second_moments(model.ir, model.batches(), chosen) if solver == "sparsegpt" else {}
    group = 4 if pattern == "2:4" else None
    done = []
    for layer in chosen:
        weight = _matrix(layer)
        if solver == "sparsegpt":
            after = sparsegpt(weight, moments[layer.name].matrix(), ratio, group)
        else:
            scores = wanda(weight, squares[layer.name]) if squares else weight.abs()
            after = weight * keep_largest(scores, ratio, group)
        done.append(_stored(layer, weight, after))
    return [*done, *changes]


def _reason_to_stay(layer: Layer, pattern: Pattern) -> str:
    channels = layer.array.shape[layer.in_axis or 0]
    if layer.node.attributes.get_int("group", 1) != 1:
        return Reason.USE.because("it has groups")
    if pattern == "2:4" and channels % 4:
        return Reason.USE.because(f"its {channels} input channels do not divide into fours")
    return ""


def _matrix(layer: Layer) -> torch.Tensor:
    return torch.from_numpy(np.array(matrix(layer, layer.array)[0]))


def _stored(layer: Layer, before: torch.Tensor, after: torch.Tensor) -> Change:
    """Store the weight of one layer with its zeros; the change holds the relative error."""
    if torch.equal(before, after):
        return Change(layer.name, skipped=Reason.NO_GAIN.because("as many of its weights are zero already"))
    store(layer.weight, from_matrix(layer, after.numpy()[None]))
    size = layer.nbytes
    zeros = float((after == 0).float().mean())
    error = float((after - before).norm() / before.norm().clamp(min=1e-30))
    return Change(layer.name, f"{zeros:.0%} of the weights are zero", size, size, error)
