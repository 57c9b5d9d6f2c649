"""Weight-only quantization: weights are stored in few bits, and activations stay float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compress.changes import Change, Reason
from compress.errors import PassError
from compress.graph.layers import Layer, array, is_float_weight, nbytes
from compress.graph.walks import only_reader
from compress.numerics.affine import Quantized
from compress.numerics.formats import Method, stored_bits
from compress.numerics.granularity import PerAxis, PerGroup, PerTensor
from compress.quantize import nodes as emit
from compress.quantize.feedback import FEW_BITS
from compress.quantize.plans import (
    Operators,
    Plan,
    Precision,
    fits_blocked_kernel,
    plans,
    read_elsewhere,
)
from compress.quantize.solvers import Solver, solutions, solve_alone

if TYPE_CHECKING:
    from compress.model import Model

WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
"""Float types of more than 16 bits."""
FUSED_BEHIND_GEMM = {
    *("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh"),
    "ThresholdedRelu",
}
"""Activations that the runtime takes into a Gemm first, which then reads floats that each run decodes."""
FEWEST_HALVES = 64
"""Tensors of fewer numbers stay float32, because the Cast after float16 takes more bytes than it saves."""


def store_integer_weights(
    model: Model,
    chosen: Callable[..., bool],
    precision: Precision,
    *,
    solver: Solver,
    operators: Operators,
    halves: bool,
) -> list[Change]:
    """Store the weights of all chosen layers as integers, in place; return a change per weight.

    Weights in the bodies of If, Loop and Scan are stored if `precision` gives them 8 bits: they are
    rounded to the nearest, since no solver sees their inputs.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a layer's node and weight.
        precision: bits and groups of the integers.
        solver: how the integers are chosen.
        operators: which nodes compute with the integers.
        halves: whether tables, matrices and biases that belong to no layer are stored in float16.

    Raises:
        DataError: the solver needs calibration data, and there are none or they are not finite.
        PassError: a weight or its inputs cannot be quantized; the message names the layer.
    """
    found, changes = plans(model.graph, lambda layer: chosen(*layer.names), precision, operators)
    if halves:
        changes += store_halves(model.graph, found, chosen)
    for plan, solution in solutions(model, found, solver):
        change = store(plan, solution.quantized, operators)
        changes.append(replace(change, action=change.action and f"{change.action}, {solution.story}"))
    if precision.bits == 8:
        changes += _store_in_bodies(model, chosen, precision, operators)
    return changes


def store_int8_weights(
    model: Model,
    chosen: Callable[..., bool],
    *,
    operators: Operators = "onnxruntime",
    besides: Collection[str] = (),
    rounded: Mapping[str, Quantized] | None = None,
) -> list[Change]:
    """Store the weights of all chosen layers as 8-bit integers, in place; return a change per weight.

    Weights in the bodies of If, Loop and Scan are stored as well. Layers that are already quantized have no
    float weight, so that this function stores the weights that an earlier step left in float.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a layer's node and weight.
        operators: which nodes compute with the integers.
        besides: operators whose weights stay in float, except in the bodies of If, Loop and Scan.
        rounded: integers by the weight's name, used where a weight is stored with one scale a channel;
            other weights are rounded to the nearest.

    Raises:
        PassError: a weight is not finite; the message names the layer.
    """

    def fits(layer: Layer) -> bool:
        return layer.node.op_type not in besides and chosen(*layer.names)

    precision = Precision(8, group_size=128)
    changes = _store_nearest(model.graph, fits, precision, operators, rounded or {})
    return changes + _store_in_bodies(model, chosen, precision, operators)


def store_at_widths(
    model: Model, widths: Mapping[str, int], rounded: Mapping[str, Quantized]
) -> list[Change]:
    """Store weights as integers of the bits that each is given, in place; return a change per weight.

    There is one scale a channel, and in embeddings one for each block. Weights of up to 4 bits are stored in
    4, others in 8.

    Args:
        model: the model; changed in place.
        widths: bits by the weight's name.
        rounded: integers by the weight's name, used where a weight is stored with one scale a channel;
            other weights are rounded to the nearest.

    Raises:
        PassError: a weight cannot have these bits, or is not finite; the message names the layer.
    """
    changes = []
    for bits in sorted(set(widths.values())):
        method: Method = "mse" if bits <= FEW_BITS else "minmax"
        precision = Precision(bits, None, method=method, table_bits=bits, fewest_weights=0)
        names = {name for name, wanted in widths.items() if wanted == bits}
        found, _ = plans(model.graph, partial(_has_weight, names), precision, "onnxruntime")
        for plan in found:
            if plan.format.bits != bits:
                reason = f"{plan.layer.node.op_type} reads weights of {plan.format.bits} bits, not of {bits}"
                raise PassError(f"layer {plan.layer.name!r}: {reason}")
            change = _store_known(plan, rounded, "onnxruntime")
            if change.skipped:
                raise PassError(f"layer {plan.layer.name!r} cannot have {bits}-bit weights: {change.skipped}")
            changes.append(change)
    return changes


def _store_in_bodies(
    model: Model, chosen: Callable[..., bool], precision: Precision, operators: Operators
) -> list[Change]:
    """Store the weights that lie in the bodies of If, Loop and Scan, or that one body alone reads."""
    bodies = [each for each in model.ir.graphs() if isinstance(each, ir.Graph) and each is not model.graph]
    changes = []
    for body in bodies:

        def fits(layer: Layer, body: ir.Graph = body) -> bool:
            readers = {node.graph for node, _ in layer.weight.uses()}
            return (layer.weight.graph is body or readers == {body}) and chosen(*layer.names)

        changes += _store_nearest(body, fits, precision, operators, {})
    return changes


def _store_nearest(
    graph: ir.Graph,
    fits: Callable[[Layer], bool],
    precision: Precision,
    operators: Operators,
    known: Mapping[str, Quantized],
) -> list[Change]:
    """Store weights as the known integers of their name, or as the nearest ones."""
    found, changes = plans(graph, fits, precision, operators)
    return changes + [_store_known(plan, known, operators) for plan in found]


def _has_weight(names: Collection[str], layer: Layer) -> bool:
    return layer.weight.name in names


def _store_known(plan: Plan, known: Mapping[str, Quantized], operators: Operators) -> Change:
    integers = known.get(plan.layer.weight.name or "")
    if integers is None or plan.blocked or integers.granularity != plan.format.granularity:
        integers = solve_alone(plan).quantized
    return store(plan, integers, operators)


def store(plan: Plan, quantized: Quantized, operators: Operators) -> Change:
    """Replace a weight by its integers, and its readers by nodes that compute with them."""
    layer, weight, before = plan.layer, plan.weight(), plan.layer.nbytes
    bits = quantized.bits
    # Blocked kernels read integers of two bits, which the standard lacks.
    stored = _widened(quantized, stored_bits(bits if plan.blocked else max(bits, 4)))
    decoded = not plan.blocked and _stays_decoded(plan.readers, stored, operators)
    if not decoded and stored.scale.numel() >= FEWEST_HALVES:
        stored = stored.half_scales()
    if stored.bytes >= before:
        return Change(
            layer.name, skipped=Reason.SMALL.because(f"{bits}-bit integers and scales would take more bytes")
        )
    form = _emit(plan.readers, stored, blocked=plan.blocked, decoded=decoded)
    granularity = stored.granularity
    groups = (
        f"groups of {granularity.size}"
        if isinstance(granularity, PerGroup)
        else "per tensor"
        if isinstance(granularity, PerTensor)
        else "per channel"
    )
    wider = f" stored in {stored.bits}" if stored.bits != bits else ""
    return Change(
        layer.name,
        f"{bits}-bit weights{wider}, {groups}, {form}",
        bytes_before=before,
        bytes_after=stored.bytes,
        error=stored.relative_error(weight),
    )


def store_halves(graph: ir.Graph, planned: Sequence[Plan], chosen: Callable[..., bool]) -> list[Change]:
    """Store tables, matrices and biases without a plan in float16, unless a value would change by 0.1 %.

    These are position embeddings and the biases of convolutions and recurrent layers, a good part of a
    small file whose other weights have 4 bits. Other vectors stay float32, because the runtime recognizes
    fusible patterns by them.

    Args:
        graph: the graph; changed in place.
        planned: the weights that will have fewer bits.
        chosen: called with the names of a tensor and of its readers.
    """
    changes = []
    weights = {plan.layer.weight for plan in planned}
    for value in list(graph.initializers.values()):
        readers = (node.name for node in value.consumers())
        rank = 1 if all(use.node.op_type == "Conv" for use in value.uses()) else 2
        wide = value.dtype in WIDE and is_float_weight(value, rank=rank)
        if value in weights or not wide or not chosen(value.name, *readers):
            continue
        before = array(value)
        with np.errstate(over="ignore", under="ignore"):
            half = before.astype(np.float16)
        close = np.isfinite(half).all() and np.allclose(half, before, rtol=1e-3, atol=0)
        if before.size >= FEWEST_HALVES and close:
            error = float(np.linalg.norm(half - before) / (np.linalg.norm(before) or 1))
            changes.append(Change(value.name or "", "float16", nbytes(value), half.nbytes, error))
            emit.widen_weight(value, ir.tensor(half))
    return changes


def _widened(quantized: Quantized, bits: int) -> Quantized:
    """Return the same numbers as integers of `bits`; zero points in the middle of the range stay there."""
    if bits <= quantized.bits:
        return quantized
    wider = replace(quantized.format, bits=bits)
    shift = wider.middle - quantized.format.middle
    values, zero_point = quantized.values + shift, quantized.zero_point + shift
    return replace(quantized, values=values, zero_point=zero_point, format=wider)


def _emit(readers: Sequence[Layer], quantized: Quantized, *, blocked: bool, decoded: bool) -> str:
    """Rewrite the readers of one weight; return how they read it, for the change."""
    weight = readers[0].weight
    if blocked:
        multiplied = any(reader.in_axis is not None for reader in readers)
        for reader in readers:
            if reader.in_axis is not None:
                emit.matmul_nbits(reader.node, weight, quantized)
            else:
                emit.gather_quantized(reader.node, weight, quantized, multiplied=multiplied)
        tables = "GatherBlockQuantized" if any(reader.in_axis is None for reader in readers) else ""
        return " and ".join(filter(None, (tables, "MatMulNBits" if multiplied else "")))
    if _only_gathered(readers):
        for reader in readers:
            emit.gather_dequantize(reader.node, weight, quantized)
        return "Gather and Mul"
    if decoded:
        emit.dequantize_weight(weight, quantized)
        return "DequantizeLinear"
    emit.expand_weight(weight, quantized)
    return "float once loaded"


def _only_gathered(readers: Sequence[Layer]) -> bool:
    return all(reader.node.op_type == "Gather" for reader in readers) and not read_elsewhere(readers)


def _stays_decoded(readers: Sequence[Layer], quantized: Quantized, operators: Operators) -> bool:
    """Tell whether a weight outside of blocked kernels is read through a DequantizeLinear."""
    return operators == "standard" or _ends_short(quantized) or _fuses(readers, quantized, operators)


def _fuses(readers: Sequence[Layer], quantized: Quantized, operators: Operators) -> bool:
    """Tell whether the runtime fuses the DequantizeLinear and the layer into a MatMulNBits."""
    behind = only_reader(readers[0].node.outputs[0])
    activated = behind is not None and behind.op_type in FUSED_BEHIND_GEMM
    return (
        operators == "onnxruntime"
        and not (activated and readers[0].node.op_type == "Gemm")
        and isinstance(quantized.granularity, PerAxis)
        and len(readers) == 1
        and readers[0].out_axis == 1
        and fits_blocked_kernel(readers[0], quantized.bits)
    )


def _ends_short(quantized: Quantized) -> bool:
    """Tell whether the last group holds fewer weights than the others."""
    groups = quantized.granularity
    return isinstance(groups, PerGroup) and quantized.values.shape[groups.axis] % groups.size != 0
