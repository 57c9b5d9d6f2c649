"""Solvers for the integers of weights in few bits: round to nearest, HQQ, GPTQ and AWQ."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compress.errors import DataError
from compress.graph import edit
from compress.graph.block import Walk
from compress.graph.edit import add_initializer
from compress.graph.layers import Layer
from compress.graph.linear import (
    in_layout,
    in_type,
    input_rows,
    linear_layers,
    matrix,
    recurrent_layers,
    source,
    store,
)
from compress.graph.moments import second_moments
from compress.numerics.affine import Quantized, quantize, split_columns
from compress.numerics.awq import awq
from compress.numerics.formats import IntegerFormat
from compress.numerics.gptq import Hessian, gptq
from compress.numerics.granularity import Granularity, PerAxis, PerGroup
from compress.numerics.hqq import hqq
from compress.progress import track
from compress.quantize.plans import Plan, blame

if TYPE_CHECKING:
    from compress.model import Model

Solver = Literal["rtn", "hqq", "gptq", "awq"]
"""How integers are chosen: rtn, the nearest; hqq, for the least p-norm of the weights' errors, with ranges
chosen accordingly; gptq, for the least error of the outputs, by error feedback; awq, the same by scaling."""

MOST_MOMENTS = 1 << 28
"""Most second moments of a layer, groups times squared features; a layer with more is rounded to nearest."""
TABLE_DAMPING = 0.3
"""Damping for a table that is embedding and classifier: the embedding needs all features accurate."""


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The integers of one weight.

    Attributes:
        quantized: the integers, of the weight times its input scales.
        story: how they were found, for the change.
        input_scales: scales that the layer's inputs are divided by, [K]; None without scales.
        by_row: whether the scales apply to the rows of the weight, not its columns.
    """

    quantized: Quantized
    story: str
    input_scales: Tensor | None = None
    by_row: bool = False

    def effective(self) -> Tensor:
        """Return the float weight that the layer effectively has."""
        weight = self.quantized.dequantize()
        if self.input_scales is None:
            return weight
        return weight / (self.input_scales[:, None] if self.by_row else self.input_scales)


def solve_alone(plan: Plan, solver: Solver = "rtn") -> Solution:
    """Choose the integers of one weight without its inputs: by HQQ if asked, otherwise the nearest.

    Raises:
        PassError: the weight is not finite; the message names the layer.
    """
    weight = plan.weight()
    weighed = plan.format.method == "mse" and _is_linear(plan.layer)
    try:
        if solver == "hqq" and plan.format.bits < 8:
            return Solution(hqq(weight, plan.format), "hqq")
        return Solution(
            quantize(weight, plan.format, importance=weight.abs() if weighed else None), "rounded"
        )
    except ValueError as error:
        raise blame(plan.layer, error) from error


def solutions(model: Model, plans: Sequence[Plan], solver: Solver) -> list[tuple[Plan, Solution]]:
    """Return every plan with its integers and the solver that found them.

    GPTQ and AWQ take convolutions, linear and recurrent layers in the order of the graph. Each layer is
    fitted to the inputs that the already quantized layers before it give, with its outputs on the original
    inputs as targets. Layers that share their input are solved side by side. AWQ divides the inputs of
    linear layers in `model` by scales and multiplies their weights by them. Both solvers round to nearest
    all other weights, weights in 8 bits, and those whose inputs are unknown. GPTQ needs at least as many
    rows of inputs as features.

    Raises:
        DataError: the solver needs calibration data, and there are none or they are not finite.
        PassError: a weight or its inputs cannot be quantized; the message names the layer.
    """
    found = [] if solver in ("rtn", "hqq") else _sharing_inputs(model.graph, plans, solver)
    taken = {id(plan) for sharing in found for plan in sharing}
    solved = _tables(model, plans) if solver == "gptq" else {}
    solved |= {id(plan): solve_alone(plan, solver) for plan in plans if id(plan) not in taken | solved.keys()}
    if found:
        changed = model.copy()
        for plan in plans:
            if id(plan) in solved:
                _put(changed, plan, solved[id(plan)].effective())
        with Walk(model.ir, model.batches()) as before, Walk(changed.ir, model.batches()) as now:
            for sharing in track(found, "layers in turn"):
                for walk in (before, now):
                    walk.advance(sharing[0].layer.name)
                for plan, solution in zip(sharing, _solve(sharing, before, now, solver), strict=True):
                    solved[id(plan)] = solution
                    _put(changed, plan, solution.effective())
        for sharing in found:
            _scale_inputs([plan.layer for plan in sharing], solved[id(sharing[0])].input_scales)
    return [(plan, solved[id(plan)]) for plan in plans]


def _tables(model: Model, plans: Sequence[Plan]) -> dict[int, Solution]:
    """Return the solutions of embeddings that a MatMul, the classifier most often, reads as well.

    They are solved before all other layers, because the network starts with them. Errors are weighed by
    the classifier's inputs in the original model; strong damping keeps the embedding's own errors small.
    """
    multiplied = {
        id(plan): next(reader for reader in plan.readers if reader.in_axis is not None)
        for plan in plans
        if plan.format.bits < 8 and sorted(each.node.op_type for each in plan.readers) == ["Gather", "MatMul"]
    }
    moments = second_moments(model.ir, model.batches(), list(multiplied.values())) if multiplied else {}
    solved = {}
    for plan in plans:
        layer = multiplied.get(id(plan))
        if layer is None or moments[layer.name].rows < len(moments[layer.name]):
            continue
        turned = replace(plan, readers=(layer,))
        weight = torch.from_numpy(np.array(matrix(layer, layer.array)[0]))
        try:
            hessian = moments[layer.name].matrix()
            result = gptq(weight, hessian, _format_of_matrix(turned), damping=TABLE_DAMPING)
        except ValueError as error:
            raise blame(plan.layer, error) from error
        solved[id(plan)] = Solution(_restored(turned, [result]), "gptq")
    return solved


def _put(model: Model, plan: Plan, weight: Tensor) -> None:
    store(model.graph.initializers[plan.layer.weight.name or ""], weight.numpy())


def _is_linear(layer: Layer) -> bool:
    return layer.operator.cost == "product"


def _sharing_inputs(graph: ir.Graph, plans: Sequence[Plan], solver: Solver) -> list[list[Plan]]:
    """Return the plans that a solver takes, in the order of the graph; the same inputs go together."""
    plain = {layer.weight for found in (linear_layers, recurrent_layers) for layer in found(graph)}
    found: dict[Hashable, list[Plan]] = {}
    for plan in plans:
        layer, attributes = plan.layer, plan.layer.node.attributes
        if plan.format.bits >= 8 or layer.weight not in plain:
            continue  # 8 bits gain nothing
        if solver == "awq" and not _is_linear(layer):
            continue
        granularity = _of_matrix(plan)
        count, features, _ = matrix(layer, layer.array).shape
        if granularity is not None and count * features**2 <= MOST_MOMENTS:
            window = [(name, attributes.get_ints(name, [])) for name in ("pads", "strides", "dilations")]
            shape = (count, features, plan.format.over(granularity))
            found.setdefault((source(layer), str(window), shape), []).append(plan)
    return list(found.values())


def _of_matrix(plan: Plan) -> Granularity | None:
    """Return the granularity over [features, outputs]; None if the groups have different lengths there."""
    granularity = plan.format.granularity
    if isinstance(granularity, PerGroup):
        channels = plan.layer.array.shape[granularity.axis]
        runs = plan.layer.array.ndim == 2 or channels % granularity.size == 0
        return PerGroup(granularity.size, 0) if runs else None
    return PerAxis(1)


def _solve(sharing: list[Plan], before: Walk, now: Walk, solver: Solver) -> list[Solution]:
    """Quantize the weights of layers with one input, side by side, each group with its own moments."""
    moments = _moments(sharing[0].layer, before, now)
    # With fewer rows than features, GPTQ overfits these rows and does worse than rounding on others.
    if moments[0].rows < (len(moments[0]) if solver == "gptq" else 1):
        return [solve_alone(plan, solver) for plan in sharing]
    weights = [torch.from_numpy(np.array(matrix(plan.layer, plan.layer.array))) for plan in sharing]
    try:
        integers = _format_of_matrix(sharing[0])
        if solver == "awq":
            return _scaled(sharing, torch.cat([weight[0] for weight in weights], 1), moments[0], integers)
        solved = [
            gptq(each.compensated(weight), each.matrix(), integers)
            for each, weight in zip(moments, torch.cat(weights, 2), strict=True)
        ]
    except ValueError as error:
        raise blame(sharing[0].layer, error) from error
    shares = zip(
        *(split_columns(result, [each.shape[2] for each in weights]) for result in solved), strict=True
    )
    return [Solution(_restored(plan, share), "gptq") for plan, share in zip(sharing, shares, strict=True)]


def _scaled(sharing: list[Plan], weight: Tensor, moments: Hessian, integers: IntegerFormat) -> list[Solution]:
    """Quantize linear layers with one input by AWQ."""
    hessian = moments.matrix()
    magnitude = hessian.diagonal().sqrt()  # the root mean square approximates the mean magnitude
    scales, result = awq(weight, hessian, magnitude, integers)
    widths = [plan.layer.array.shape[plan.layer.out_axis] for plan in sharing]
    return [
        Solution(_restored(plan, [share]), "awq", scales, plan.layer.in_axis == 0)
        for plan, share in zip(sharing, split_columns(result, widths), strict=True)
    ]


def _format_of_matrix(plan: Plan) -> IntegerFormat:
    granularity = _of_matrix(plan)
    assert granularity is not None
    return plan.format.over(granularity)


def _moments(layer: Layer, before: Walk, now: Walk) -> list[Hessian]:
    """Return the second moments of a layer's present inputs and of their drift, group by group.

    Raises:
        DataError: an input is not finite.
    """
    count, features, _ = matrix(layer, layer.array).shape
    found = [Hessian(features) for _ in range(count)]
    name = source(layer)
    for batch, inputs in enumerate(zip(before.values(name), now.values(name), strict=True)):
        originals, rows = (input_rows(layer, each, np.random.default_rng(batch))[0] for each in inputs)
        try:
            for each, group, original in zip(found, rows, originals, strict=True):
                # Where the data choose the rows, quantization may have chosen others.
                parts = (group, original) if group.shape == original.shape else (group,)
                each.observe(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))
        except ValueError as error:
            raise DataError(f"calibration data, batch {batch}: activation {name!r}: {error}") from error
    return found


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
        format=plan.format,
    )


def _scale_inputs(readers: Sequence[Layer], scales: Tensor | None) -> None:
    """Divide the common input of `readers` by `scales` [features] and multiply their weights by them."""
    value = readers[0].node.inputs[0]
    if value is None or scales is None or bool((scales == 1).all()):
        return
    factors = in_type((1 / scales).numpy(), readers[0].dtype)
    factor = add_initializer(edit.graph_of(value), f"{value.name}.unscale", factors)
    node = ir.node("Mul", [value, factor], name=f"{readers[0].name}.unscale")
    node.outputs[0].name = f"{readers[0].name}.unscaled"
    node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    edit.insert_before(readers[0].node, node)
    for layer in readers:
        edit.set_input(layer.node, 0, node.outputs[0])
        rows = scales.numpy()
        store(layer.weight, layer.array * (rows[:, None] if layer.in_axis == 0 else rows))
