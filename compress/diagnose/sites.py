"""The layers that two graphs have in common, found by the names of their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.diagnose.kernels import INTEGER_KERNELS
from compress.graph.layers import array, layers_of
from compress.quantize.regions import FUSED

CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "MatMulNBits", "RNN")
"""Operators that sum products; with embeddings they are the layers compared."""
DECODERS = ("Cast", "DequantizeLinear", "Mul", "Reshape", "Sub", "Transpose")
"""Operators that turn stored codes into a weight."""

EPILOGUE = ("Add", "BatchNormalization", "Cast", "DequantizeLinear", "Mul", *FUSED)
"""Operators that may stand between a sum of products and the value that is compared."""


@dataclass(frozen=True, slots=True)
class Quantizer:
    """The range [low, high] of a QuantizeLinear with one scale, and its step; 0 if each run finds its own."""

    low: float
    high: float
    step: float


EACH_RUN = Quantizer(-np.inf, np.inf, 0.0)
"""What rounds to 8 bits in the range of the values themselves."""
DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul")
"""Operators that do so with their first input."""


@dataclass(frozen=True, slots=True)
class Site:
    """A layer that both graphs compute.

    Attributes:
        name: of the original's node.
        op_type: of the original's node.
        output: (original, variant) names of its output, in the variant behind a quantizer, if any.
        inputs: the same of what it reads; noise on these is not the layer's own.
        quantizers: the variant's quantizers that are this layer's own, by the original's value.
        weight_rounding: noise over signal of its weight as the variant stores it; 0 for a float weight.
        channel_axis: axis of the features of the first input.
    """

    name: str
    op_type: str
    output: tuple[str, str]
    inputs: tuple[tuple[str, str], ...]
    quantizers: dict[str, Quantizer]
    weight_rounding: float
    channel_axis: int

    @property
    def is_integer(self) -> bool:
        """Whether the variant may run it in an integer kernel."""
        return self.weight_rounding > 0


def sites(original: ir.Graph, variant: ir.Graph) -> tuple[list[Site], list[str]]:
    """Return the layers of `original` found in `variant` by value names, and names of those not found."""
    there = {value.name or "": value for node in variant for value in node.outputs}
    there |= {value.name or "": value for value in variant.inputs}
    found: list[Site] = []
    missing: list[str] = []
    settled: dict[str, tuple[str, str]] = {}
    for node in original:
        if not _is_layer(node):
            continue
        tail = chain(node.outputs[0])
        known = [value for value in tail if value.name in there]
        if not known:
            missing.append(node.name or "")
            continue
        rounding = weight_rounding(_kernel(there[known[-1].name or ""]))
        site = _site(node, tail, known[-1], there, settled, rounding)
        found.append(site)
        settled.update((value.name or "", site.output) for value in tail)
    return found, missing


def _site(
    node: ir.Node,
    tail: Sequence[ir.Value],
    shared: ir.Value,
    there: dict[str, ir.Value],
    settled: dict[str, tuple[str, str]],
    rounding: float,
) -> Site:
    """Return the site of a node, compared at `shared`, which the variant has under the same name."""
    own: dict[str, Quantizer] = {}
    output = shared.name or "", shared.name or ""
    quantized = _quantized(there[output[1]])
    if quantized is not None:
        # A quantizer may stand for the Relu or Clip that the original has behind this value.
        end = shared
        for value in tail[tail.index(shared) + 1 :]:
            producer = value.producer()
            if producer is None or producer.op_type not in FUSED:
                break
            end = value
        output = end.name or "", quantized[1].name or ""
        own[output[0]] = quantized[0]
    inputs = []
    for value in filter(None, node.inputs[:2]):
        name = value.name or ""
        if value.const_value is not None or name not in there or not _is_float(value):
            continue
        if name in settled:
            inputs.append(settled[name])
            continue
        if not value.is_graph_input():
            inputs.append((name, name))
        if (quantizer := _quantized(there[name])) is not None:
            own[name] = quantizer[0]
        elif any(use.node.op_type in DYNAMIC and use.idx == 0 for use in there[name].uses()):
            own[name] = EACH_RUN
    axis = 1 if node.op_type in ("Conv", "ConvTranspose") else -1
    return Site(node.name or "", node.op_type, output, tuple(inputs), own, rounding, axis)


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in CONTRACTIONS or any(layers_of(node))


def _kernel(value: ir.Value) -> ir.Node | None:
    """Return the node that sums the products behind a value, through scaling, bias and activation."""
    node = value.producer()
    while node is not None and node.op_type in EPILOGUE:
        computed = [each for each in node.inputs if each is not None and each.const_value is None]
        node = computed[0].producer() if computed else None
    return node


def weight_rounding(node: ir.Node | None) -> float:
    """Return the power of uniform rounding noise over that of a layer's weight, from its codes alone.

    In steps of the weight's scale the noise is 1/12 a value. 0 for a weight in float, or not found.
    """
    if node is None:
        return 0.0
    weight = INTEGER_KERNELS.get(node.op_type)
    for value in filter(None, node.inputs[:2] if weight is None else node.inputs[weight : weight + 1]):
        codes = _codes(value)
        if codes is None:
            continue
        if node.op_type == "MatMulNBits":
            codes = _unpacked(codes, node.attributes.get_int("bits", 4))
        power = float(np.square(codes.astype(np.float64)).mean()) if codes.size else 0.0
        return 1 / 12 / power if power else 0.0
    return 0.0


def _codes(value: ir.Value) -> np.ndarray | None:
    """Return the integers that a weight is computed from, less a zero point in the middle if unsigned."""
    while value.const_value is None:
        producer = value.producer()
        if producer is None or producer.op_type not in DECODERS or producer.inputs[0] is None:
            return None
        value = producer.inputs[0]
    if value.dtype is None or not value.dtype.is_integer():
        return None
    codes = array(value)
    middle = 0 if value.dtype.is_signed() else 2 ** (value.dtype.bitwidth - 1)
    return codes.astype(np.int64) - middle


def _unpacked(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return the codes of `bits` bits in bytes less 128, less their own middle."""
    shifts = np.arange(0, 8, bits)
    values: np.ndarray = ((codes + 128)[..., None] >> shifts) & (2**bits - 1)
    values -= 2 ** (bits - 1)
    return values


def chain(value: ir.Value) -> list[ir.Value]:
    """Return a layer's output and what alone reads it in turn: BatchNormalization, bias, Relu, Clip."""
    values = [value]
    while len(readers := value.consumers()) == 1 and not value.is_graph_output():
        node = readers[0]
        bias = node.op_type == "Add" and any(each and each.const_value is not None for each in node.inputs)
        if node.op_type not in ("BatchNormalization", *FUSED) and not bias:
            break
        value = node.outputs[0]
        values.append(value)
    return values


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _quantized(value: ir.Value) -> tuple[Quantizer, ir.Value] | None:
    """Return the quantizer that reads a value and the output of its DequantizeLinear, if there are any."""
    for use in value.uses():
        node = use.node
        if node.op_type != "QuantizeLinear" or use.idx != 0:
            continue
        for reader in node.outputs[0].consumers():
            quantizer = _quantizer(node)
            if reader.op_type == "DequantizeLinear" and quantizer is not None:
                return quantizer, reader.outputs[0]
    return None


def _quantizer(node: ir.Node) -> Quantizer | None:
    parameters = node.inputs[1:3]
    if len(parameters) < 2 or any(each is None or each.const_value is None for each in parameters):
        return None
    scale, zero_point = (array(each) for each in parameters if each is not None)
    if scale.size != 1 or zero_point.dtype.kind not in "iu":
        return None
    step, zero = float(scale.item()), int(zero_point.item())
    limits = np.iinfo(zero_point.dtype)
    return Quantizer((limits.min - zero) * step, (limits.max - zero) * step, step)
