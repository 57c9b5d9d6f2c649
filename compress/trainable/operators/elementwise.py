"""Arithmetic, comparison, logic and casts, element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from compress.trainable.operators.table import Either, Number, Scale, Shift, operator, torch_type

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}


def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operator(name)
    def unary(x: Tensor) -> Tensor:
        return function(x)


def _register_binary(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    @operator(name)
    def binary(a: Tensor, b: Tensor) -> Tensor:
        return function(a, b)


for _name, _unary in _UNARY.items():
    _register_unary(_name, _unary)
for _name, _binary in _BINARY.items():
    _register_binary(_name, _binary)


@operator("Identity")
def identity(x: Tensor) -> Tensor:
    """Return `x` itself."""
    return x


@operator("Add")
def add(a: Shift, b: Shift) -> Tensor:
    """``a + b``."""
    return torch.add(a, b)


@operator("Sub")
def subtract(a: Shift, b: Shift) -> Tensor:
    """``a - b``."""
    return torch.sub(a, b)


@operator("Mul")
def multiply(a: Scale, b: Scale) -> Tensor:
    """``a * b``."""
    return torch.mul(a, b)


@operator("Div")
def divide(a: Tensor, b: Scale) -> Tensor:
    """``a / b``; whole numbers are divided towards zero."""
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Pow")
def power(base: Tensor, exponent: Either) -> Tensor:
    """``base ** exponent``, in the type of the base."""
    if isinstance(exponent, list):
        exponent = torch.tensor(exponent, device=base.device)
    return torch.pow(base, exponent).to(base.dtype)


@operator("Mod")
def modulo(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """Remainder with the sign of the divisor, or of the dividend with `fmod`."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@operator("Max")
def maximum(*inputs: Tensor) -> Tensor:
    """Largest of the inputs."""
    return functools.reduce(torch.maximum, inputs)


@operator("Min")
def minimum(*inputs: Tensor) -> Tensor:
    """Smallest of the inputs."""
    return functools.reduce(torch.minimum, inputs)


@operator("Sum")
def total(*inputs: Shift) -> Tensor:
    """Sum of the inputs."""
    return functools.reduce(torch.add, inputs)


@operator("Mean")
def mean(*inputs: Tensor) -> Tensor:
    """Mean of the inputs."""
    return functools.reduce(torch.add, inputs) / len(inputs)


@operator("Clip")
def clip(x: Tensor, low: Number | None = None, high: Number | None = None) -> Tensor:
    """`x` limited to [low, high]."""
    return x if low is None and high is None else torch.clamp(x, low, high)


@operator("BitShift")
def bit_shift(a: Tensor, b: Tensor, *, direction: str) -> Tensor:
    """``a << b`` or ``a >> b``."""
    shift = torch.bitwise_left_shift if direction == "LEFT" else torch.bitwise_right_shift
    return shift(a, b)


@operator("IsInf")
def is_infinite(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Whether an element is infinite, of a wanted sign."""
    infinite = torch.isinf(x)
    if not detect_negative:
        infinite = infinite & (x > 0)
    if not detect_positive:
        infinite = infinite & (x < 0)
    return infinite


@operator("Where")
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`x` where the condition holds, else `y`."""
    return torch.where(condition, x, y)


@operator("Cast")
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """`x` in another element type; the last two attributes are about 8-bit floats only."""
    return x.to(torch_type(to))


@operator("CastLike")
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """`x` in the element type of another tensor."""
    return x.to(like.dtype)
