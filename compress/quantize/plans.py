"""Plans of how each weight of a graph is stored: in which integer format, read by which nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
import torch

from compress.changes import Change, Reason
from compress.errors import PassError
from compress.graph.layers import Layer, array, layers
from compress.numerics.formats import IntegerFormat, Method, stored_bits
from compress.numerics.granularity import Granularity, PerAxis, PerGroup

Operators = Literal["onnxruntime", "expanded", "standard"]
"""Integer kernels of ONNX Runtime where it has them; weights that become float as the model is loaded;
or DequantizeLinear of the ONNX standard, which runtimes compute at every run or fuse."""
SMALLEST_BLOCK = 16
"""Smallest block of the runtime's kernels; blocks are powers of two up to 256."""
FEWEST_WEIGHTS = 32
"""Channels of fewer weights keep 8 bits, because their errors do not average out."""
TABLE_BLOCK = 128
"""Weights of an embedding that share a scale where it has 8 bits and other weights have fewer."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How weights are to be stored; `plans` derives the `IntegerFormat` of each weight from it.

    Attributes:
        bits: bits of a weight.
        group_size: the largest number of weights that share a scale; None for one scale a channel.
        symmetric: whether zero points are the middle of the range. With None, only convolutions of fewer
            than 8 bits store zero points; the kernels of linear layers are faster without.
        method: how ranges are chosen.
        table_bits: bits of embedding tables; None for those of other weights.
        fewest_weights: channels of fewer weights have 8 bits.
    """

    bits: int
    group_size: int | None
    symmetric: bool | None = True
    method: Method = "minmax"
    table_bits: int | None = None
    fewest_weights: int = FEWEST_WEIGHTS

    def for_readers(self, readers: Sequence[Layer]) -> tuple[int, int | None]:
        """Return bits and group size of the weight that `readers` read."""
        weight, out_axis = readers[0].array, readers[0].out_axis
        if self.table_bits and any(layer.in_axis is None for layer in readers):
            coarse = self.table_bits == 8 != self.bits or self.group_size is None
            return self.table_bits, TABLE_BLOCK if coarse else self.group_size
        few = weight.size // weight.shape[out_axis] < self.fewest_weights
        return 8 if few else self.bits, self.group_size


@dataclass(frozen=True, slots=True)
class Plan:
    """How one weight will be stored.

    Attributes:
        readers: the layers that read it.
        format: its integers, in the weight's own layout.
        blocked: whether the runtime's blocked kernels read it, which take unsigned values.
    """

    readers: tuple[Layer, ...]
    format: IntegerFormat
    blocked: bool

    @property
    def layer(self) -> Layer:
        """The first reader."""
        return self.readers[0]

    def weight(self) -> torch.Tensor:
        """Return a copy of the weight."""
        return torch.from_numpy(self.layer.array.copy())


def blame(layer: Layer, error: ValueError) -> PassError:
    """Return `error` with the names of the layer and of its weight."""
    return PassError(f"layer {layer.name!r}, weight {layer.weight.name!r}: {error}")


def plans(
    graph: ir.Graph, chosen: Callable[[Layer], bool], precision: Precision, operators: Operators
) -> tuple[list[Plan], list[Change]]:
    """Return a plan for the weight of every chosen layer, and the changes of the other layers.

    With `operators` "onnxruntime", MatMul, Gemm and embeddings use blocked kernels, and all other weights
    become float as the model is loaded. With "expanded", only embeddings stay integers. A weight that
    several nodes read is planned once.
    """
    found, changes = chosen_weights(graph, chosen)
    return [_plan(readers, precision, operators) for readers in found], changes


def chosen_weights(
    graph: ir.Graph, chosen: Callable[[Layer], bool]
) -> tuple[list[tuple[Layer, ...]], list[Change]]:
    """Return the readers of each weight of which one is chosen, and the changes of the other weights."""
    found: dict[str, list[Layer]] = {}
    for layer in layers(graph):
        found.setdefault(layer.weight.name or "", []).append(layer)
    kept, changes = [], []
    for readers in found.values():
        if any(chosen(reader) for reader in readers):
            reason = None if readers[0].is_finite else Reason.NOT_FINITE
        else:
            reason = Reason.LEFT_OUT
        if reason:
            changes.append(Change(readers[0].name, skipped=reason))
        else:
            kept.append(tuple(readers))
    return kept, changes


def _plan(readers: tuple[Layer, ...], precision: Precision, operators: Operators) -> Plan:
    layer = readers[0]
    bits, group_size = precision.for_readers(readers)
    is_table = all(reader.in_axis is None for reader in readers)
    blocked = (
        operators != "standard"
        and group_size is not None
        and (operators == "onnxruntime" or is_table)
        and all(fits_blocked_kernel(reader, bits) for reader in readers)
        and len({_group_axis(reader) for reader in readers}) == 1
        and not read_elsewhere(readers)
    )
    if not blocked and layer.in_axis is None:
        bits = 8  # the standard's Gather takes no smaller integers
    symmetric = precision.symmetric
    if symmetric is None:
        symmetric = bits >= 8 or "Conv" not in layer.node.op_type
    # An embedding outside of blocked kernels has scales but no zero points.
    symmetric |= not blocked and layer.in_axis is None
    granularity = _granularity(layer, bits, group_size, blocked=blocked)
    integers = IntegerFormat(bits, granularity, symmetric, signed=not blocked, method=precision.method)
    return Plan(readers, integers, blocked)


def fits_blocked_kernel(layer: Layer, bits: int) -> bool:
    """Tell whether a blocked kernel of the runtime can compute what `layer` does."""
    node = layer.node
    if layer.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        return False
    if node.op_type == "Gather":  # the kernel takes rows of whole bytes
        return bool(layer.array.shape[1] * bits % 8 == 0)
    if node.op_type == "Gemm":
        plain = node.attributes.get_float("alpha", 1.0) == 1.0 == node.attributes.get_float("beta", 1.0)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        vector = bias is None or (
            bias.const_value is not None and array(bias).shape == (layer.array.shape[1],)
        )
        return plain and vector and not node.attributes.get_int("transA", None) and layer.out_axis == 1
    return node.op_type == "MatMul"


def _group_axis(layer: Layer) -> int:
    return 1 if layer.in_axis is None else layer.in_axis


def read_elsewhere(readers: Sequence[Layer]) -> bool:
    """Tell whether a node other than `readers` reads their weight, so that its floats are needed."""
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
    return PerGroup(channels, axis) if layer.operator.is_recurrent else PerAxis(layer.out_axis)


def cheapest_block(features: int, largest: int, bits: int) -> int:
    """Return the power of two from 16 to `largest` that stores `features` weights in the fewest bytes.

    The last block is padded with zeros, which makes large blocks expensive for odd sizes.
    """
    sizes = [SMALLEST_BLOCK << step for step in range(5) if SMALLEST_BLOCK << step <= largest]
    return min(sizes or [SMALLEST_BLOCK], key=lambda size: -(-features // size) * (size * bits // 8 + 2))
