"""Shape arithmetic on the host: the operators that exporters compute sizes with, on Python integers.

A host value is an ``int`` (symbolic under `torch.export`) or a list of them, in place of a tensor of rank 0
or 1. A function here returns ``NotImplemented`` for what it cannot do, and the operator's torch function
takes over. So sizes stay symbolic under `torch.compile`, and nothing waits for a device.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import onnx_ir as ir

Host: TypeAlias = int | list[int]
LONGEST = 64
"""A longer vector is data, not a shape."""


def _elementwise(function: Callable[[int, int], int]) -> Callable[[Host, Host], Host]:
    def apply(a: Host, b: Host) -> Host:
        if not isinstance(a, list) and not isinstance(b, list):
            return function(a, b)
        left, right = list(_listed(a)), list(_listed(b))
        count = len(right) if len(left) == 1 else len(left)
        left, right = left * count if len(left) == 1 else left, right * count if len(right) == 1 else right
        return [function(x, y) for x, y in zip(left, right, strict=True)]

    return apply


def _divide(a: int, b: int) -> int:
    # Sizes are not negative; where they are, ONNX divides towards zero.
    return a // b if a >= 0 and b > 0 else int(a / b)


def _gather(x: Host, indices: Host, axis: int = 0) -> Any:
    if not isinstance(x, list):
        return NotImplemented
    return [x[index] for index in indices] if isinstance(indices, list) else x[indices]


def _concat(*inputs: Host, axis: int) -> Any:
    if not all(isinstance(part, list) for part in inputs):
        return NotImplemented
    return [size for part in inputs for size in _listed(part)]


def _slice(x: Host, starts: Host, ends: Host, axes: Host | None = None, steps: Host | None = None) -> Any:
    if not (isinstance(x, list) and isinstance(starts, list) and isinstance(ends, list)):
        return NotImplemented
    step = steps[0] if isinstance(steps, list) else 1
    return x[slice(starts[0], ends[0], step)]


def _unsqueeze(x: Host, axes: Host | Sequence[int] | None = None) -> Any:
    return [x] if not isinstance(x, list) and len(_listed(axes)) == 1 else NotImplemented


def _squeeze(x: Host, axes: Host | Sequence[int] | None = None) -> Any:
    sizes = _listed(x)
    return sizes[0] if len(sizes) == 1 else NotImplemented


def _listed(axes: Host | Sequence[int] | None) -> Sequence[int]:
    return () if axes is None else axes if isinstance(axes, Sequence) else [axes]


def _reshape(x: Host, shape: Host, allowzero: int = 0) -> Any:
    sizes = _listed(shape)
    if not sizes:
        return _squeeze(x)
    return list(_listed(x)) if len(sizes) == 1 else NotImplemented


def _cast(x: Host, to: int, **_: Any) -> Any:
    return x if to == ir.DataType.INT64 else NotImplemented


def _product(x: Host, axes: Host | None = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
    if not isinstance(x, list):
        return NotImplemented
    product = math.prod(x)
    return [product] if keepdims else product


def _where(condition: Host, x: Host, y: Host) -> Any:
    if not any(isinstance(part, list) for part in (condition, x, y)):
        return x if condition else y
    rows = [list(_listed(part)) for part in (condition, x, y)]
    count = max(len(row) for row in rows)
    rows = [row if len(row) == count else row * count for row in rows]
    return [a if chosen else b for chosen, a, b in zip(*rows, strict=True)]


def _constant_of_shape(shape: Host, value: ir.TensorProtocol | None = None) -> Any:
    if value is None or value.dtype != ir.DataType.INT64 or not isinstance(shape, list):
        return NotImplemented
    number = int(value.numpy().item())
    if not shape:
        return number
    return [number] * shape[0] if len(shape) == 1 and shape[0] <= LONGEST else NotImplemented


HOST: dict[str, Callable[..., Any]] = {
    "Add": _elementwise(operator.add),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(operator.eq),
    "Gather": _gather,
    "Identity": lambda x: x,
    "Max": lambda *inputs: functools.reduce(_elementwise(max), inputs),
    "Min": lambda *inputs: functools.reduce(_elementwise(min), inputs),
    "Mul": _elementwise(operator.mul),
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _elementwise(operator.sub),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""Operators by name; those of ONNX's own domain only."""
