"""The layers that two graphs have in common, found by the names of their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.graph import facts
from compress.graph.layers import array, layers_of
from compress.graph.walks import codes_behind, epilogue, first_output, product_behind


@dataclass(frozen=True, slots=True)
class Quantizer:
    """The range [low, high] of a QuantizeLinear with one scale, and its step; 0 if each run finds its own."""

    low: float
    high: float
    step: float


EACH_RUN = Quantizer(-np.inf, np.inf, 0.0)
"""What rounds to 8 bits in the range of the values themselves."""


@dataclass(frozen=True, slots=True)
class Site:
    """A layer that both graphs compute.

    Attributes:
        name: of the original's node.
        op_type: of the original's node.
        output: (original, variant) names of its output; the variant's is behind its quantizer, if it has one.
        inputs: the same pairs for what it reads; noise on these is not the layer's own.
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
    there = {value.name: value for node in variant for value in node.outputs if value.name}
    there |= {value.name or "": value for value in variant.inputs}
    found: list[Site] = []
    missing: list[str] = []
    settled: dict[str, tuple[str, str]] = {}
    for node in original:
        output = first_output(node)
        if output is None or not is_layer(node):
            continue
        tail = epilogue(output)
        known = [value for value in tail if value.name in there]
        if not known:
            missing.append(node.name or "")
            continue
        rounding = weight_rounding(product_behind(there[known[-1].name or ""]))
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
            if producer is None or not facts.of(producer).cuts:
                break
            end = value
        output = end.name or "", quantized[1].name or ""
        own[output[0]] = quantized[0]
    inputs = []
    for value in filter(None, node.inputs[:2]):
        name = value.name or ""
        if name in settled:  # also a value that the variant's quantizer stands for
            inputs.append(settled[name])
            continue
        if value.const_value is not None or name not in there or not _is_float(value):
            continue
        if not value.is_graph_input():
            inputs.append((name, name))
        if (quantizer := _quantized(there[name])) is not None:
            own[name] = quantizer[0]
        elif any(facts.of(use.node).finds_range and use.idx == 0 for use in there[name].uses()):
            own[name] = EACH_RUN
    axis = facts.of(node).channel_axis or -1
    return Site(node.name or "", node.op_type, output, tuple(inputs), own, rounding, axis)


def is_layer(node: ir.Node) -> bool:
    """Tell whether a node sums products or looks up rows of an embedding."""
    return facts.of(node).contracts or any(layers_of(node))


def weight_rounding(node: ir.Node | None) -> float:
    """Return the power of uniform rounding noise over that of a layer's weight, from its codes alone.

    In steps of the weight's scale the noise is 1/12 a value. 0 for a weight in float, or not found.
    """
    if node is None:
        return 0.0
    operator = facts.of(node)
    places = [operator.weights[0].index] if operator.multiplies_codes else [0, 1]
    for value in (node.inputs[place] for place in places if place < len(node.inputs)):
        stored = codes_behind(value)
        if stored is None:
            continue
        codes = _codes(stored)
        if node.op_type == "MatMulNBits":
            codes = _unpacked(codes, node.attributes.get_int("bits", 4))
        power = float(np.square(codes.astype(np.float64)).mean()) if codes.size else 0.0
        return 1 / 12 / power if power else 0.0
    return 0.0


def _codes(stored: ir.Value) -> np.ndarray:
    """Return the integers of an initializer, less a zero point in the middle if they are unsigned."""
    codes = array(stored).astype(np.int64)
    dtype = stored.dtype
    return codes if dtype is None or dtype.is_signed() else codes - 2 ** (dtype.bitwidth - 1)


def _unpacked(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return the codes of `bits` bits in bytes less 128, less their own middle."""
    shifts = np.arange(0, 8, bits)
    values: np.ndarray = ((codes + 128)[..., None] >> shifts) & (2**bits - 1)
    values -= 2 ** (bits - 1)
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
