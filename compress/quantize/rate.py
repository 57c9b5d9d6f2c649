"""Weights of a graph at a given entropy: what their errors cost, and how their integers are stored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compress.changes import Change
from compress.errors import ModelError, PassError
from compress.graph.layers import Layer
from compress.graph.linear import from_matrix, groups, is_linear, linear_layers, matrix, recurrent_layers
from compress.graph.moments import second_moments
from compress.model import Model
from compress.numerics.affine import SMALL_SCALE, Quantized, integer_type
from compress.numerics.formats import IntegerFormat
from compress.numerics.gptq import Hessian
from compress.numerics.granularity import PerAxis, PerGroup, PerTensor
from compress.numerics.rate import Coded, PricedWeight, code_to_rate
from compress.quantize.curvature import curvature
from compress.quantize.plans import Operators, Plan, Precision, blame, plans
from compress.quantize.weight_only import store


def store_coded_weights(
    model: Model, chosen: Callable[..., bool], rate: float, operators: Operators
) -> list[Change]:
    """Store the weights of all chosen layers as integers of low entropy, in place.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a layer's node and weight.
        rate: bits a weight once entropy coded, scales included; a mean over all weights.
        operators: which nodes compute with the integers.

    Returns:
        A change per weight.

    Raises:
        PassError: a weight is not finite, or the rate is out of reach.
        DataError: calibration data are not finite.
    """
    precision = Precision(bits=8, group_size=128)
    found, changes = plans(model.graph, lambda layer: chosen(*layer.names), precision, operators)
    costs = _Costs(model, found)
    weights = []
    for plan in found:
        try:
            weights.append(costs.priced(plan))
        except ValueError as error:
            raise blame(plan.layer, error) from error
    try:
        coded = code_to_rate(weights, rate)
    except ValueError as error:
        raise PassError(f"coded-weights: {error}") from error
    stored = (_store(*each, operators) for each in zip(found, coded, strict=True))
    return [*changes, *stored]


class _Costs:
    """What errors of weights cost at the outputs; relative to the weights' energy where that is unknown."""

    def __init__(self, model: Model, plans: Sequence[Plan]) -> None:
        self.curvature: dict[str, Tensor] = {}
        self.moments: dict[ir.Value, Hessian] = {}
        if model.calibration is None:
            return
        # If torch cannot run the graph there are no gradients, but the inputs of layers are still known.
        with contextlib.suppress(ModelError):
            self.curvature = curvature(model, [plan.layer.weight.name or "" for plan in plans])
        plain = {layer.weight for layer in linear_layers(model.graph) if groups(layer) == 1}
        plain |= {layer.weight for layer in recurrent_layers(model.graph) if layer.index == 1}
        found = [plan.layer for plan in plans if plan.layer.weight in plain]
        moments = second_moments(model.ir, model.batches(), found)
        self.moments = {layer.weight: moments[layer.name] for layer in found}

    def priced(self, plan: Plan) -> PricedWeight:
        """Return a plan's weight with what its errors cost."""
        layer = plan.layer
        weight = _columns(layer, plan.weight())
        costs = self.curvature.get(layer.weight.name or "")
        cost = 1 / max(float(weight.square().sum()), 1e-30) if costs is None else float(costs.mean())
        return PricedWeight(weight, cost, self._hessian(layer))

    def _hessian(self, layer: Layer) -> Tensor | None:
        """Return the second moments of the rows that `_columns` of a weight are multiplied with."""
        moments = self.moments.get(layer.weight)
        # With fewer rows of inputs than features, error feedback overfits these rows.
        if moments is None or moments.rows < matrix(layer, layer.array).shape[1]:
            return None
        directions = 1 if _is_matrix(layer) else layer.array.shape[0]
        return torch.kron(torch.eye(directions), moments.matrix())


def _is_matrix(layer: Layer) -> bool:
    return is_linear(layer) and groups(layer) == 1


def _columns(layer: Layer, weight: Tensor) -> Tensor:
    """Return a weight as [features, output channels]."""
    if _is_matrix(layer):
        return torch.from_numpy(np.ascontiguousarray(matrix(layer, weight.numpy())[0]))
    return PerAxis(layer.out_axis).rows(weight).T.contiguous()


def _restored(layer: Layer, content: Tensor) -> Tensor:
    """Undo `_columns`."""
    if _is_matrix(layer):
        return torch.from_numpy(from_matrix(layer, content.numpy()[None]))
    return PerAxis(layer.out_axis).from_rows(content.T.contiguous(), layer.array.shape)


def _store(plan: Plan, coded: Coded, operators: Operators) -> Change:
    """Store the integers of a weight, in 4 bits if they fit."""
    layer = plan.layer
    narrow = bool((coded.codes >= -8).all() and (coded.codes <= 7).all()) and _may_be_narrow(plan)
    bits = 4 if narrow else 8
    granularity = plan.format.granularity
    used = coded.codes.any(0) if coded.scale.numel() > 1 else coded.codes.any()
    steps = torch.where(used, coded.scale, SMALL_SCALE)
    if isinstance(granularity, PerAxis) and coded.scale.numel() == 1 and layer.in_axis is not None:
        granularity = PerTensor()
    shape = tuple(layer.array.shape)
    scale = PerAxis(layer.out_axis).expand(steps.expand(shape[layer.out_axis]), shape)
    scale_shape = granularity.scale_shape(shape)
    if isinstance(granularity, PerGroup):
        scale = scale.expand(scale_shape)
    scale = (steps if isinstance(granularity, PerTensor) else scale).reshape(scale_shape).contiguous()
    integers = IntegerFormat(bits, granularity, signed=plan.format.signed)
    dtype = integer_type(integers)
    zero_point = torch.full(scale_shape, integers.middle, dtype=dtype)
    values = (_restored(layer, coded.codes) + integers.middle).to(dtype)
    change = store(plan, Quantized(values, scale, zero_point, integers), operators)
    length = coded.bits / coded.codes.numel()
    return replace(change, action=change.action and f"{change.action}, {length:.2f} bits once coded")


def _may_be_narrow(plan: Plan) -> bool:
    if plan.layer.in_axis is None:
        return plan.blocked and plan.layer.array.shape[1] % 2 == 0
    return True
