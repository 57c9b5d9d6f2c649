"""What ONNX Runtime makes of a quantized graph: what it leaves unfused, what runs slowly on this CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.cpu import saturates
from compress.graph import facts
from compress.graph.layers import array

BLOCK_SIZES = (16, 256)
"""Smallest and largest block for which MatMulNBits has fast kernels."""
FAST_LEVEL = 4
"""Accuracy level of MatMulNBits that rounds activations to 8 bits as it multiplies."""
SAFE_MAGNITUDE = 64
"""255 * 64 * 2 fits in the 16 bits that pairs of products are summed in on x86 without VNNI."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with the kernel of one layer, and what to do about it."""

    layer: str
    problem: str
    advice: str


def unfused(graph: ir.Graph) -> list[Finding]:
    """Return the layers of an optimized graph that read a value or a weight dequantized at every run."""
    found: dict[str, Finding] = {}
    for node in graph:
        if _multiplies_floats(node):
            finding = _float_kernel(node)
        elif node.op_type == "DequantizeLinear" and _is_weight(node.inputs[0]):
            finding = _expanded(node)
        else:
            continue
        if finding is not None:
            found.setdefault(finding.layer, finding)
    return list(found.values())


def _multiplies_floats(node: ir.Node) -> bool:
    operator = facts.of(node)
    return not operator.codes and (operator.cost == "product" or operator.cost in facts.CONVOLUTIONS)


def _float_kernel(node: ir.Node) -> Finding | None:
    """Return a finding on a float kernel whose input, weight or both are dequantized."""
    expanded = [number for number, value in enumerate(node.inputs[:2]) if _dequantizer(value) is not None]
    if not expanded:
        return None
    if expanded == [1]:
        problem = f"{node.op_type} in float; its weight is dequantized at every run"
        advice = "store the weight for a kernel that reads it, or so that it becomes float once, at load"
    elif expanded == [0]:
        problem = f"{node.op_type} in float on a dequantized input; its weight is not quantized"
        advice = "quantize the weight too, or leave the input in float"
    else:
        problem = f"{node.op_type} in float between Q/DQ pairs"
        advice = "quantize its output too, as the integer kernel asks for, or leave the layer in float"
    return Finding(_called(node), problem, advice)


def _expanded(node: ir.Node) -> Finding | None:
    """Return a finding on a weight that something other than a float kernel reads dequantized."""
    readers = [reader for reader in node.outputs[0].consumers() if not _multiplies_floats(reader)]
    if not readers:
        return None
    problem = f"{readers[0].op_type} reads a weight that is dequantized at every run"
    advice = "gather the integers first and dequantize the rows, or store a float weight"
    if readers[0].op_type != "Gather":
        advice = "store the weight so that it becomes float once, at load"
    return Finding(_called(readers[0]), problem, advice)


def _called(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or ""


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and len(value.const_value.shape) > 1


def slow(graph: ir.Graph) -> list[Finding]:
    """Return layers of an optimized graph whose kernels are slow or saturate on this machine."""
    return [finding for node in graph for finding in (*_blocked(node), *_integer(node))]


def _blocked(node: ir.Node) -> Iterator[Finding]:
    if node.op_type != "MatMulNBits":
        return
    name = _called(node)
    if node.attributes.get_int("accuracy_level", 0) != FAST_LEVEL:
        advice = f"set accuracy_level={FAST_LEVEL}: three to seven times faster"
        yield Finding(name, f"MatMulNBits without accuracy level {FAST_LEVEL}", advice)
    size = node.attributes.get_int("block_size", 0)
    if not BLOCK_SIZES[0] <= size <= BLOCK_SIZES[1]:
        advice = f"use blocks of {BLOCK_SIZES[0]} to {BLOCK_SIZES[1]}"
        yield Finding(name, f"MatMulNBits with blocks of {size}", advice)


def _integer(node: ir.Node) -> Iterator[Finding]:
    """Yield findings on a kernel of 8-bit integers, most of them for x86 without VNNI."""
    if node.op_type == "ConvInteger":
        advice = "take the ranges of convolutions from calibration data, or leave them in float"
        problem = "ConvInteger finds the range of its input at every run, and is many times slower than float"
        yield Finding(_called(node), problem, advice)
    operator = facts.of(node)
    weight = node.inputs[operator.weights[0].index] if operator.multiplies_codes else None
    if weight is None or weight.const_value is None or not saturates():
        return
    codes = array(weight)
    name = _called(node)
    if codes.dtype == np.uint8:
        advice = "signed 7-bit weights are a third faster on this CPU, which lacks VNNI"
        yield Finding(name, f"{node.op_type} with unsigned weights", advice)
    elif np.abs(codes.astype(np.int16)).max(initial=0) > SAFE_MAGNITUDE:
        advice = "use 7-bit weights (reduce_range): sums of products saturate on this CPU, which lacks VNNI"
        yield Finding(name, f"{node.op_type} with 8-bit signed weights", advice)
