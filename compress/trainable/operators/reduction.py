"""Reductions, running sums and the order of elements."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compress.trainable.operators.table import Int, Ints, operator

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _sum(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    return torch.sum(x, dims, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, dims, keepdim=keep)
    count = x.numel() // max(_sum(x, dims, False).numel(), 1)
    return torch.div(_sum(x, dims, keep), count, rounding_mode="trunc")


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = torch.prod(x, dim, keepdim=keep, dtype=x.dtype)
    return x


def _extreme(function: Callable[..., Tensor], sign: int, x: Tensor, dims: list[int], keep: bool) -> Tensor:
    if x.numel():
        extreme: Tensor = function(x, dims, keepdim=keep)
        return extreme
    # Without elements: the value that any element would replace.
    if x.dtype == torch.bool:
        fill: float = sign < 0
    elif x.is_floating_point():
        fill = -sign * torch.inf
    else:
        limits = torch.iinfo(x.dtype)
        fill = limits.min if sign > 0 else limits.max
    return torch.full_like(_sum(x, dims, keep), fill)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda x, dims, keep: _sum(x.abs(), dims, keep),
    "ReduceL2": lambda x, dims, keep: torch.linalg.vector_norm(x, 2, dims, keepdim=keep),
    "ReduceLogSum": lambda x, dims, keep: torch.log(_sum(x, dims, keep)),
    "ReduceLogSumExp": lambda x, dims, keep: torch.logsumexp(x, dims, keepdim=keep),
    "ReduceMax": functools.partial(_extreme, torch.amax, 1),
    "ReduceMean": _mean,
    "ReduceMin": functools.partial(_extreme, torch.amin, -1),
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, dims, keep: _sum(x * x, dims, keep),
}


def _reduce(function: Reduction, x: Tensor, axes: Sequence[int] | None, keep: int) -> Tensor:
    dims = sorted(axis % x.dim() for axis in axes) if axes else list(range(x.dim()))
    if not dims:
        # A scalar has no dimension to reduce, yet it is squared, rooted and so on.
        return function(x.reshape(1), [0], False)
    return function(x, dims, bool(keep))


def _register(name: str, function: Reduction) -> None:
    @operator(name, attributes=["axes"])
    @operator(name, since=13 if name == "ReduceSum" else 18)
    def reduction(
        x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        if not axes and noop_with_empty_axes:
            # Only the reduction itself is left out: a sum of squares still squares.
            return function(x.unsqueeze(0), [0], False)
        return _reduce(function, x, axes, keepdims)


for _name, _function in _REDUCTIONS.items():
    _register(_name, _function)


def _arg_extreme(
    function: Callable[..., Tensor], x: Tensor, axis: int, keepdims: int, select_last_index: int
) -> Tensor:
    best = x == function(x, axis, keepdim=True)
    if select_last_index:
        index = x.shape[axis] - 1 - best.flip(axis).to(torch.int8).argmax(axis, keepdim=bool(keepdims))
    else:
        index = best.to(torch.int8).argmax(axis, keepdim=bool(keepdims))
    return index


@operator("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Index of the largest element along an axis, the first or the last of equals."""
    return _arg_extreme(torch.amax, x, axis, keepdims, select_last_index)


@operator("ArgMin")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Index of the smallest element along an axis, the first or the last of equals."""
    return _arg_extreme(torch.amin, x, axis, keepdims, select_last_index)


def _running(
    function: Callable[..., Tensor], neutral: int, x: Tensor, axis: int, exclusive: int, reverse: int
) -> Tensor:
    if reverse:
        x = x.flip(axis)
    if exclusive:
        start = torch.full_like(x.narrow(axis, 0, 1), neutral)
        x = torch.cat([start, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    result = function(x, axis, dtype=x.dtype)
    return result.flip(axis) if reverse else result


@operator("CumSum")
def running_sum(x: Tensor, axis: Int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Sum of the elements up to and including each one, or without it."""
    return _running(torch.cumsum, 0, x, _only(axis), exclusive, reverse)


@operator("CumProd")
def running_product(x: Tensor, axis: Int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Product of the elements up to and including each one, or without it."""
    return _running(torch.cumprod, 1, x, _only(axis), exclusive, reverse)


def _only(axis: int | list[int]) -> int:
    """Read an axis that exporters write as a scalar or as a list of one."""
    return axis[0] if isinstance(axis, list) else axis


@operator("TopK")
def top_k(x: Tensor, k: Ints, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    """The `k` largest or smallest elements along an axis, in order, equals by index; and their indices."""
    values, indices = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, _only(k)), indices.narrow(axis, 0, _only(k))
