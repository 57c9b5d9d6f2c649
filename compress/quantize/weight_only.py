"""Weights stored in few bits while activations stay float: which form suits which layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir
import torch

from compress.changes import Change
from compress.errors import PassError
from compress.graph.layers import RECURRENT, Layer, array, is_float_weight, layers
from compress.numerics.affine import Quantized, quantize, stored_bits
from compress.numerics.granularity import Granularity, PerAxis, PerGroup, PerTensor
from compress.quantize import nodes as emit

if TYPE_CHECKING:
    from compress.model import Model

Operators = Literal["onnxruntime", "expanded", "standard"]
"""Integer kernels of ONNX Runtime where it has them; weights that become float as the model is loaded;
or DequantizeLinear of the ONNX standard, which runtimes compute at every run or fuse."""
BLOCKED_KERNELS = ("MatMul", "Gemm", "Gather")
SMALLEST_BLOCK = 16
"""Blocks of the runtime's kernels are powers of two from here to 256."""
FEWEST_HALVES = 64
"""Fewer numbers stay float32: the Cast that float16 needs takes more of the file than it saves."""

Precision = Callable[[Sequence[Layer]], tuple[int, int | None]]
"""From the layers that read a weight to its bits and the largest number of weights that share a scale;
None for one scale a channel."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one weight will be stored.

    Attributes:
        readers: the layers that read it.
        granularity: which of its elements share a scale, in the weight's own layout.
        bits: bits of its values; 3, and 2 outside of blocked kernels, are stored in 4.
        blocked: whether the runtime's blocked kernels read it, which take unsigned values.
    """

    readers: tuple[Layer, ...]
    granularity: Granularity
    bits: int
    blocked: bool

    @property
    def layer(self) -> Layer:
        """The first reader."""
        return self.readers[0]

    @property
    def signed(self) -> bool:
        """Whether the values are two's complement."""
        return not self.blocked

    @property
    def stored_bits(self) -> int:
        """Bits that a value takes in the file."""
        return stored_bits(self.bits if self.blocked else max(self.bits, 4))

    def weight(self) -> torch.Tensor:
        """Return a copy of the weight."""
        return torch.from_numpy(self.layer.array.copy())

    def blame(self, error: ValueError) -> PassError:
        """Return `error` with the names of layer and weight."""
        return PassError(f"layer {self.layer.name!r}, weight {self.layer.weight.name!r}: {error}")


def store_int8_weights(
    model: Model,
    chosen: Callable[..., bool],
    *,
    group_size: int = 128,
    operators: Operators = "onnxruntime",
    besides: Collection[str] = (),
    rounded: Mapping[str, Quantized] | None = None,
) -> list[Change]:
    """Store the weights of all chosen layers as 8-bit integers, in place; return a change per weight.

    Weights in the bodies of If, Loop and Scan are stored as well. Layers that another pass has quantized
    already have no float weight left, so that this function stores what the other pass left over.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a layer's node and weight.
        group_size: the largest number of weights that share a scale in the runtime's blocked kernels.
        operators: which nodes compute with the integers.
        besides: operators whose weights stay as they are, outside of the bodies of If, Loop and Scan.
        rounded: integers by the weight's name, used where a weight is stored with one scale a channel;
            other weights are rounded to the nearest.

    Raises:
        PassError: a weight is not finite; the message names the layer.
    """
    known = rounded or {}
    changes: list[Change] = []
    for graph in [each for each in model.ir.graphs() if isinstance(each, ir.Graph)]:
        excluded = besides if graph is model.graph else ()

        def fits(layer: Layer, graph: ir.Graph = graph, excluded: Collection[str] = excluded) -> bool:
            inside = layer.weight.graph is graph and layer.node.op_type not in excluded
            return inside and chosen(*layer.names)

        found, left = plans(graph, fits, lambda readers: (8, group_size), operators)
        changes += left
        for plan in found:
            integers = known.get(plan.layer.weight.name or "")
            if integers is None or not plan.signed or integers.granularity != plan.granularity:
                try:
                    integers = quantize(plan.weight(), plan.granularity, plan.bits, signed=plan.signed)
                except ValueError as error:
                    raise plan.blame(error) from error
            changes.append(store(graph, plan, integers, operators))
    return changes


def plans(
    graph: ir.Graph, chosen: Callable[[Layer], bool], precision: Precision, operators: Operators
) -> tuple[list[Plan], list[Change]]:
    """Plan how every chosen layer's weight is stored; return the plans, and the changes of other layers.

    With `operators` "onnxruntime", MatMul, Gemm and embeddings go to blocked kernels, and all other
    weights are expanded as the model is loaded; with "expanded", embeddings alone stay in integers.
    A weight that several nodes read is planned once, and chosen if one of them is.
    """
    found: dict[str, list[Layer]] = {}
    for layer in layers(graph):
        found.setdefault(layer.weight.name or "", []).append(layer)
    result, changes = [], []
    for readers in found.values():
        if any(chosen(reader) for reader in readers):
            result.append(_plan(tuple(readers), *precision(readers), operators))
        else:
            changes.append(Change(readers[0].name, skipped="not selected"))
    return result, changes


def _plan(readers: tuple[Layer, ...], bits: int, group_size: int | None, operators: Operators) -> Plan:
    layer = readers[0]
    is_table = all(reader.in_axis is None for reader in readers)
    blocked = (
        operators != "standard"
        and group_size is not None
        and (operators == "onnxruntime" or is_table)
        and all(_fits_blocked_kernel(reader, bits) for reader in readers)
        and len({_group_axis(reader) for reader in readers}) == 1
        and not _read_elsewhere(readers)
    )
    if not blocked and layer.in_axis is None:
        bits = 8  # the standard's Gather takes no smaller integers
    return Plan(readers, _granularity(layer, bits, group_size, blocked=blocked), bits, blocked)


def store(graph: ir.Graph, plan: Plan, quantized: Quantized, operators: Operators) -> Change:
    """Replace a weight by its integers, and its readers by what computes with them."""
    layer, weight, before = plan.layer, plan.weight(), plan.layer.array.nbytes
    stored = _widened(quantized, plan.stored_bits)
    decoded = not plan.blocked and _stays_decoded(plan.readers, stored, operators)
    if not decoded and stored.scale.numel() >= FEWEST_HALVES:
        stored = stored.half_scales()
    if stored.bytes >= before:
        return Change(layer.name, skipped=f"scales would outweigh what {plan.bits} bits save")
    form = _emit(plan.readers, stored, blocked=plan.blocked, decoded=decoded)
    granularity = plan.granularity
    groups = (
        f"groups of {granularity.size}"
        if isinstance(granularity, PerGroup)
        else "per tensor"
        if isinstance(granularity, PerTensor)
        else "per channel"
    )
    wider = f" stored in {stored.bits}" if stored.bits != plan.bits else ""
    return Change(
        layer.name,
        f"{plan.bits}-bit weights{wider}, {groups}, {form}",
        bytes_before=before,
        bytes_after=stored.bytes,
        error=stored.relative_error(weight),
    )


def store_halves(graph: ir.Graph, planned: Sequence[Plan], chosen: Callable[..., bool]) -> list[Change]:
    """Store tables, matrices and biases without a plan in float16, unless that would move a value by 0.1 %.

    Positions and the biases of convolutions and recurrent layers: a good part of a small file whose
    other weights have 4 bits. Other vectors stay, for graphs are recognized by them.

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
        if value in weights or not is_float_weight(value, rank=rank) or not chosen(value.name, *readers):
            continue
        before = array(value)
        with np.errstate(over="ignore", under="ignore"):
            half = before.astype(np.float16)
        if before.size >= FEWEST_HALVES and np.allclose(half, before, rtol=1e-3, atol=0):
            emit.widen_weight(value, ir.tensor(half))
            error = float(np.linalg.norm(half - before) / (np.linalg.norm(before) or 1))
            changes.append(Change(value.name or "", "float16", before.nbytes, half.nbytes, error))
    return changes


def _widened(quantized: Quantized, bits: int) -> Quantized:
    """Return the same numbers in the range of `bits`; zero points in the middle stay there."""
    if bits <= quantized.bits:
        return quantized
    shift = 0 if quantized.signed else (1 << (bits - 1)) - (1 << (quantized.bits - 1))
    values, zero_point = quantized.values + shift, quantized.zero_point + shift
    return replace(quantized, values=values, zero_point=zero_point, bits=bits)


def _fits_blocked_kernel(layer: Layer, bits: int) -> bool:
    node = layer.node
    if node.op_type == "Gather":  # the kernel takes rows for whole bytes
        return bool(layer.array.shape[1] * bits % 8 == 0)
    if node.op_type == "Gemm":
        plain = node.attributes.get_float("alpha", 1.0) == 1.0 == node.attributes.get_float("beta", 1.0)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        vector = bias is None or (
            bias.const_value is not None and array(bias).shape == (layer.array.shape[1],)
        )
        return plain and vector and not node.attributes.get_int("transA", None) and layer.out_axis == 1
    return node.op_type in BLOCKED_KERNELS


def _group_axis(layer: Layer) -> int:
    return 1 if layer.in_axis is None else layer.in_axis


def _read_elsewhere(readers: Sequence[Layer]) -> bool:
    """Tell whether anything but `readers` reads their weight: its floats are needed then."""
    nodes = {reader.node for reader in readers}
    for use in readers[0].weight.uses():
        turned = use.node.op_type == "Transpose" and not use.node.outputs[0].is_graph_output()
        if not (use.node in nodes or (turned and set(use.node.outputs[0].consumers()) <= nodes)):
            return True
    return False


def _granularity(layer: Layer, bits: int, group_size: int | None, *, blocked: bool) -> Granularity:
    """Group along the input channels; convolutions with few of them get one scale a channel."""
    axis, channels = _group_axis(layer), layer.array.shape[_group_axis(layer)]
    if blocked and group_size is not None:
        return PerGroup(cheapest_block(channels, group_size, stored_bits(bits)), axis)
    size = 1
    if group_size is not None and bits < 8 and layer.in_axis is not None and channels >= 2 * group_size:
        # Groups that divide the channels can be expanded by a Mul and a Reshape.
        size = max(size for size in range(1, group_size + 1) if channels % size == 0)
    if size >= SMALLEST_BLOCK // 2:
        return PerGroup(size, axis)
    # Directions of a recurrent layer have scales of their own.
    return PerGroup(channels, axis) if layer.node.op_type in RECURRENT else PerAxis(layer.out_axis)


def cheapest_block(features: int, largest: int, bits: int) -> int:
    """Return the power of two from 16 to `largest` that stores `features` weights in the fewest bytes.

    The last block is filled up with zeros, which makes large blocks dear for odd sizes.
    """
    sizes = [SMALLEST_BLOCK << step for step in range(5) if SMALLEST_BLOCK << step <= largest]
    return min(sizes or [SMALLEST_BLOCK], key=lambda size: -(-features // size) * (size * bits // 8 + 2))


def _emit(readers: Sequence[Layer], quantized: Quantized, *, blocked: bool, decoded: bool) -> str:
    """Rewrite the readers of one weight; return the name of the form, for people."""
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
    return all(reader.node.op_type == "Gather" for reader in readers) and not _read_elsewhere(readers)


def _stays_decoded(readers: Sequence[Layer], quantized: Quantized, operators: Operators) -> bool:
    """Tell whether a weight outside of blocked kernels is read by a DequantizeLinear."""
    return operators == "standard" or _ends_short(quantized) or _fuses(readers, quantized, operators)


def _fuses(readers: Sequence[Layer], quantized: Quantized, operators: Operators) -> bool:
    """Tell whether the runtime makes a MatMulNBits of DequantizeLinear and the layer."""
    return (
        operators == "onnxruntime"
        and isinstance(quantized.granularity, PerAxis)
        and len(readers) == 1
        and readers[0].out_axis == 1
        and _fits_blocked_kernel(readers[0], quantized.bits)
    )


def _ends_short(quantized: Quantized) -> bool:
    """Tell whether the last group holds fewer weights than the others."""
    groups = quantized.granularity
    return isinstance(groups, PerGroup) and quantized.values.shape[groups.axis] % groups.size != 0
