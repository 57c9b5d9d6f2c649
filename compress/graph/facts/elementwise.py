"""Operators that compute each element from the elements in its place, and those that cost as much."""

from __future__ import annotations

from functools import partial

from compress.graph.facts.record import MICROSOFT, ML, Operator, each

_unary = partial(Operator, cost="elementwise", elementwise=True)
_rising = partial(_unary, monotone=True, zeros="keeps")
_binary = partial(_unary, operands=2)
_variadic = partial(_unary, operands=None)
_contrib = partial(_unary, domain=MICROSOFT)
_streamed = partial(Operator, cost="elementwise")
"""Costs as much as an elementwise operator without being one."""

ELEMENTWISE = (
    _unary("Abs", homogeneous=True, zeros="keeps"),
    *each(_unary, "Acos", "BitwiseNot", "Cos", "Cosh", "IsInf", "IsNaN", "Not", "Reciprocal"),
    *each(_unary, "Acosh", "Exp", "HardSigmoid", "Log", "Softplus", monotone=True),
    *each(_rising, "Asin", "Asinh", "Atan", "Atanh", "Sinh", "Sqrt", "Tanh"),
    *each(_rising, "Cast", "CastLike", "Celu", "Elu", "Erf", "Selu", "Softsign"),
    *each(_unary, "Ceil", "Floor", "Round", "Shrink", "ThresholdedRelu", monotone=True, zeros="makes"),
    _unary("Clip", monotone=True, zeros="makes", cuts=True),
    *each(_unary, "Gelu", "Mish", "Sin", "Swish", "Tan", zeros="keeps"),
    _unary("HardSwish", zeros="makes"),
    _unary("LeakyRelu", homogeneous=True, monotone=True, zeros="keeps", on_integers="computes"),
    _unary("Neg", linear=True, homogeneous=True, zeros="keeps"),
    _unary("Relu", homogeneous=True, monotone=True, zeros="makes", cuts=True),
    _unary("Sigmoid", monotone=True, on_integers="computes"),
    _unary("Sign", monotone=True, scale_invariant=True, zeros="keeps"),
    # Two operands and more
    _binary("Add", linear=True, adds=True, monotone=True, on_integers="computes"),
    *each(_binary, "And", "Or", "Xor"),
    *each(_binary, "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod", "Pow"),
    *each(_binary, "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    _binary("Div", linear=True, homogeneous=True),
    *each(_variadic, "Max", "Min", monotone=True),
    _variadic("Mean", linear=True, monotone=True),
    _variadic("Sum", linear=True, adds=True, monotone=True),
    _binary("Mul", linear=True, homogeneous=True, on_integers="computes"),
    _binary("PRelu", homogeneous=True, zeros="keeps"),
    _binary("Sub", linear=True, monotone=True),
    _unary("Where", operands=3),
    # With settings of each channel
    _unary("BatchNormalization", linear=True, normalizes=True, channel_axis=1, scale=1, bias=2),
    _unary("DequantizeLinear", linear=True, monotone=True, channel_axis=1, zeros="keeps", codes="int8"),
    _unary("QuantizeLinear", monotone=True, channel_axis=1, zeros="keeps"),
    # ONNX Runtime's own
    _contrib("BiasAdd", operands=3, linear=True, monotone=True),
    *each(_contrib, "BiasGelu", "FastGelu", operands=2),
    *each(_contrib, "Gelu", "QuickGelu", zeros="keeps"),
    *each(_contrib, "QGelu", "QLinearAdd", "QLinearMul", "QLinearWhere"),
    *each(_contrib, "QLinearLeakyRelu", "QLinearSigmoid"),
    # As expensive as elementwise
    *each(_streamed, "Affine", "BitCast", "CumProd", "EyeLike", "ParametricSoftplus", "Scale", "ScaledTanh"),
    *each(_streamed, "Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    _streamed("CumSum", linear=True, homogeneous=True, monotone=True),
    _streamed("DynamicQuantizeLinear", finds_range=True),
    _streamed("RotaryEmbedding", linear=True, homogeneous=True),
    _streamed("SwiGLU", operands=2),
    _streamed("Trilu", linear=True, homogeneous=True, monotone=True, zeros="makes"),
    _streamed("RotaryEmbedding", domain=MICROSOFT, linear=True, homogeneous=True),
    *each(_streamed, "Binarizer", "Scaler", domain=ML),
    _streamed("FeatureVectorizer", domain=ML, operands=None),
)
