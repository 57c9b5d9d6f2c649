"""Integers of weights in few bits: rounded to the nearest, or for the least error of the layer's outputs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compress.graph import emit
from compress.graph.layers import Layer
from compress.graph.linear import (
    in_layout,
    linear_layers,
    matrix,
    moments_by_group,
    recurrent_layers,
    source,
    store,
)
from compress.graph.weight_only import Plan
from compress.numerics.affine import Method, Quantized, quantize
from compress.numerics.awq import awq
from compress.numerics.gptq import gptq
from compress.numerics.granularity import Granularity, PerAxis, PerGroup
from compress.numerics.hqq import hqq

if TYPE_CHECKING:
    from compress.model import Model

Name = Literal["rtn", "hqq", "gptq", "awq"]


class Form(TypedDict):
    """Settings that all solvers take, see `quantize`."""

    symmetric: bool
    signed: bool
    method: Method


HESSIAN_BYTES = 2 << 30
"""Second moments that are held at once; more layers take more sweeps over the calibration data."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How integers are chosen.

    Attributes:
        solver: to the nearest ("rtn"), for the least p-norm of the weights' errors ("hqq"), or for the
            least error of outputs, by feedback ("gptq") or by scaled inputs ("awq").
        symmetric: zero points in the middle of the range; None for all but convolutions of fewer than
            8 bits: kernels of linear layers are faster without, and others lose nothing.
        clip: how ranges are chosen; "hqq" has its own way.
    """

    solver: Name
    symmetric: bool | None
    clip: Method

    def is_symmetric(self, plan: Plan) -> bool:
        """Tell whether a weight's zero points are in the middle of the range."""
        if self.symmetric is None:
            return plan.bits >= 8 or "Conv" not in plan.layer.node.op_type
        return self.symmetric

    def round(self, plan: Plan) -> Quantized:
        """Quantize one weight without knowing its inputs."""
        # An embedding outside of blocked kernels is multiplied by its scales alone.
        symmetric = self.is_symmetric(plan) or (plan.signed and plan.layer.in_axis is None)
        weight, kind = plan.weight(), (plan.granularity, plan.bits)
        if self.solver == "hqq" and plan.bits < 8:
            return hqq(weight, *kind, symmetric=symmetric, signed=plan.signed)
        importance = weight.abs() if self.clip == "mse" and _is_linear(plan.layer) else None
        return quantize(
            weight, *kind, symmetric=symmetric, signed=plan.signed, method=self.clip, importance=importance
        )


def solutions(model: Model, plans: Sequence[Plan], rule: Rule) -> Iterator[tuple[Plan, Quantized, str]]:
    """Yield every plan with its integers and the solver that found them, in words.

    GPTQ and AWQ read the inputs of convolutions, linear and recurrent layers from the calibration data (the
    states of these are their own outputs): layers with
    the same input share its second moments and are solved side by side. AWQ divides the inputs of
    linear layers in `model` and scales their weights up. Both solvers round all other weights, those
    in 8 bits, and those whose inputs were not seen; GPTQ wants as many rows of inputs as it has features.

    Raises:
        DataError: the solver needs calibration data, and there are none or they are not finite.
        PassError: a weight or its inputs cannot be quantized; the message names the layer.
    """
    found = {} if rule.solver in ("rtn", "hqq") else _sharing_inputs(model.graph, plans, rule)
    solved: dict[int, tuple[Quantized, str]] = {}
    for sweep in _sweeps(list(found.values())):
        moments = moments_by_group(model, [sharing[0].layer for sharing in sweep])
        for sharing in sweep:
            hessians = moments.pop(sharing[0].layer.weight.name or "")
            # With fewer rows than features GPTQ fits the rows it saw and does worse on others than rounding.
            if hessians[0].rows >= (_features(sharing[0].layer) if rule.solver == "gptq" else 1):
                results = _solve(model.graph, sharing, [each.matrix() for each in hessians], rule)
                solved |= {id(plan): (each, rule.solver) for plan, each in zip(sharing, results, strict=True)}
    for plan in plans:
        if id(plan) in solved:
            yield plan, *solved[id(plan)]
            continue
        try:
            yield plan, rule.round(plan), "hqq" if rule.solver == "hqq" and plan.bits < 8 else "rounded"
        except ValueError as error:
            raise plan.blame(error) from error


def _is_linear(layer: Layer) -> bool:
    return layer.node.op_type in ("MatMul", "Gemm")


def _sharing_inputs(graph: ir.Graph, plans: Sequence[Plan], rule: Rule) -> dict[Hashable, list[Plan]]:
    """Return the plans that a solver takes, those that multiply the same rows together."""
    plain = {layer.weight for found in (linear_layers, recurrent_layers) for layer in found(graph)}
    found: dict[Hashable, list[Plan]] = {}
    for plan in plans:
        layer, attributes = plan.layer, plan.layer.node.attributes
        if plan.bits >= 8 or layer.weight not in plain:
            continue  # 8 bits gain nothing
        if rule.solver == "awq" and not _is_linear(layer):
            continue
        granularity = _of_matrix(plan)
        if granularity is not None:
            window = [(name, attributes.get_ints(name, [])) for name in ("pads", "strides", "dilations")]
            shape = (*matrix(layer, layer.array).shape[:2], plan.bits, plan.signed, granularity)
            found.setdefault((source(layer), str(window), shape), []).append(plan)
    return found


def _features(layer: Layer) -> int:
    return int(matrix(layer, layer.array).shape[1])


def _of_matrix(plan: Plan) -> Granularity | None:
    """Return the granularity over [features, outputs]; None if groups there are no runs of one length."""
    granularity = plan.granularity
    if isinstance(granularity, PerGroup):
        channels = plan.layer.array.shape[granularity.axis]
        runs = plan.layer.array.ndim == 2 or channels % granularity.size == 0
        return PerGroup(granularity.size, 0) if runs else None
    return PerAxis(1)


def _sweeps(groups: Sequence[list[Plan]]) -> Iterator[list[list[Plan]]]:
    """Yield the groups in parts whose second moments fit into memory together."""
    part: list[list[Plan]] = []
    taken = 0
    for group in groups:
        size = 4 * _features(group[0].layer) ** 2
        if part and taken + size > HESSIAN_BYTES:
            yield part
            part, taken = [], 0
        part.append(group)
        taken += size
    if part:
        yield part


def _solve(graph: ir.Graph, sharing: list[Plan], hessians: list[Tensor], rule: Rule) -> list[Quantized]:
    """Quantize the weights of layers with one input, side by side, each group with its own Hessian."""
    matrices = [torch.from_numpy(np.array(matrix(plan.layer, plan.layer.array))) for plan in sharing]
    weights = torch.cat(matrices, 2)
    granularity = _of_matrix(sharing[0])
    assert granularity is not None
    kind = (granularity, sharing[0].bits)
    form: Form = {
        "symmetric": rule.is_symmetric(sharing[0]),
        "signed": sharing[0].signed,
        "method": rule.clip,
    }
    try:
        if rule.solver == "gptq":
            solved = [
                gptq(weight, hessian, *kind, **form)
                for weight, hessian in zip(weights, hessians, strict=True)
            ]
        else:
            magnitude = hessians[0].diagonal().sqrt()  # the root of the mean square stands for the mean
            scales, result = awq(weights[0], hessians[0], magnitude, *kind, **form)
            _scale_inputs(graph, [plan.layer for plan in sharing], scales)
            solved = [result]
    except ValueError as error:
        raise sharing[0].blame(error) from error
    widths = [each.shape[2] for each in matrices]
    shares = zip(*(_split(result, widths) for result in solved), strict=True)
    return [_restored(plan, share) for plan, share in zip(sharing, shares, strict=True)]


def _split(result: Quantized, widths: list[int]) -> list[Quantized]:
    """Return the columns of several layers one by one."""
    parts = [torch.split(each, widths, -1) for each in (result.values, result.scale, result.zero_point)]
    return [
        replace(result, values=values, scale=scale, zero_point=zero_point)
        for values, scale, zero_point in zip(*parts, strict=True)
    ]


def _restored(plan: Plan, groups: Sequence[Quantized]) -> Quantized:
    """Return one layer's result, a matrix [features, outputs] a group, in the layout of its weight."""

    def whole(contents: Sequence[Tensor]) -> Tensor:
        joined = torch.stack(tuple(contents))
        if joined.ndim == 2:  # a scale a channel
            return joined.flatten()
        return torch.from_numpy(in_layout(plan.layer, joined.numpy()))

    return replace(
        groups[0],
        values=whole([each.values for each in groups]),
        scale=whole([each.scale for each in groups]),
        zero_point=whole([each.zero_point for each in groups]),
        granularity=plan.granularity,
    )


def _scale_inputs(graph: ir.Graph, readers: Sequence[Layer], scales: Tensor) -> None:
    """Divide the common input of `readers` by `scales` [features] and multiply their weights by them."""
    value = readers[0].node.inputs[0]
    if value is None or bool((scales == 1).all()):
        return
    factor = emit.initializer(graph, f"{value.name}.unscale", (1 / scales).numpy())
    node = ir.node("Mul", [value, factor], name=f"{readers[0].name}.unscale")
    node.outputs[0].name = f"{readers[0].name}.unscaled"
    node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    graph.insert_before(readers[0].node, node)
    for layer in readers:
        layer.node.replace_input_with(0, node.outputs[0])
        factors = scales.numpy()
        store(layer.weight, layer.array * (factors[:, None] if layer.in_axis == 0 else factors))
