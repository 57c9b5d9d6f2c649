"""Elementwise operators: every axis of the output is one of the inputs'."""

from __future__ import annotations

import onnx_ir as ir

from compress.prune.rules.table import rule
from compress.prune.trace import Dims, Trace


@rule(
    *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow"),
    *("Sub", "Sum", "Where", "Xor"),
)
def _broadcast(node: ir.Node, trace: Trace) -> list[Dims] | None:
    return [trace.broadcast([trace.dims(value) for value in node.inputs if value is not None])]


@rule(
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil"),
    *("Celu", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu"),
    *("Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt"),
    *("Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
def _same(node: ir.Node, trace: Trace) -> list[Dims] | None:
    return [trace.dims(node.inputs[0])] * len(node.outputs)
