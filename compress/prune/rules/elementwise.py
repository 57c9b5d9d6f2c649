"""Elementwise operators: every axis of the output is one of the inputs'."""

from __future__ import annotations

import onnx_ir as ir

from compress.graph import facts
from compress.prune.trace import Dims, Trace, rule


@rule(*facts.names(lambda operator: operator.elementwise and operator.channel_axis is None))
def _elementwise(node: ir.Node, trace: Trace) -> list[Dims] | None:
    operands = node.inputs[: facts.of(node).operands]
    result = trace.broadcast([trace.dims(value) for value in operands if value is not None])
    return [result] * len(node.outputs)
