"""Gathering and scattering elements by index."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.table import Either, Int, Matrix, operator


def _positive(indices: Tensor, size: int) -> Tensor:
    """Count negative indices from the front instead of from the end."""
    return torch.where(indices < 0, indices + size, indices).long()


@operator("Gather")
def gather(x: Matrix, indices: Either, *, axis: int = 0) -> Tensor:
    """Slices of `x` along an axis, one for each index."""
    axis %= x.dim()
    if isinstance(indices, int):
        return x.select(axis, indices)
    if isinstance(indices, list):
        indices = torch.tensor(indices, dtype=torch.int64, device=x.device)
    chosen = _positive(indices, x.shape[axis])
    if axis == 0 and x.dim() == 2:
        return F.embedding(chosen, x)
    slices = x.index_select(axis, chosen.reshape(-1))
    return slices.reshape(*x.shape[:axis], *chosen.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Elements of `x` at the given indices along an axis."""
    return torch.gather(x, axis, _positive(indices, x.shape[axis]))


@operator("GatherND")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Slices of `x` at index tuples, which stand in the last dimension of `indices`."""
    batch = x.shape[:batch_dims]
    width = indices.shape[-1]
    flat = x.reshape(-1, *x.shape[batch_dims:])
    tuples = indices.reshape(flat.shape[0], -1, width)
    which = torch.arange(flat.shape[0], device=x.device).unsqueeze(1)
    places = [_positive(tuples[..., axis], flat.shape[1 + axis]) for axis in range(width)]
    slices = flat[(which, *places)]
    return slices.reshape(*batch, *indices.shape[batch_dims:-1], *x.shape[batch_dims + width :])


_SCATTERS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements")
def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """`x` with the updates written, added, multiplied, ... at the given indices along an axis."""
    places = _positive(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _SCATTERS[reduction])


@operator("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """`x` with slices written, added, multiplied, ... at index tuples."""
    width = indices.shape[-1]
    places = [_positive(indices[..., axis], x.shape[axis]).reshape(-1) for axis in range(width)]
    rows = torch.zeros_like(places[0])
    for place, size in zip(places, x.shape[:width], strict=True):
        rows = rows * size + place
    flat = x.reshape(math.prod(x.shape[:width]), -1)
    values = updates.reshape(rows.numel(), -1)
    if reduction == "none":
        result = flat.index_put((rows,), values)
    else:
        result = flat.scatter_reduce(0, rows.unsqueeze(1).expand_as(values), values, _SCATTERS[reduction])
    return result.reshape(x.shape)


@operator("TensorScatter")
def tensor_scatter(
    cache: Tensor, update: Tensor, starts: Tensor | None = None, *, axis: int = -2, mode: str = "linear"
) -> Tensor:
    """A cache with each sample's update written along `axis` from its own start on."""
    axis %= cache.dim()
    if starts is None:
        starts = torch.zeros(cache.shape[0], dtype=torch.int64, device=cache.device)
    steps = torch.arange(update.shape[axis], device=cache.device)
    places = starts.unsqueeze(1) + steps
    if mode == "circular":
        places = places % cache.shape[axis]
    shape = [cache.shape[0], *([1] * (cache.dim() - 1))]
    shape[axis] = update.shape[axis]
    return cache.scatter(axis, places.reshape(shape).expand_as(update), update)


@operator("OneHot")
def one_hot(indices: Tensor, depth: Int, values: Tensor, *, axis: int = -1) -> Tensor:
    """``values[1]`` at each index along a new axis, ``values[0]`` elsewhere, as for indices out of range."""
    size = int(depth[0] if isinstance(depth, list) else depth)
    rank = indices.dim() + 1
    classes = torch.arange(size, device=indices.device).reshape(
        [size if dim == axis % rank else 1 for dim in range(rank)]
    )
    off, on = values.unbind()
    found = torch.where(indices < 0, indices + size, indices).unsqueeze(axis) == classes
    return torch.where(found, on, off)


@operator("NonZero")
def nonzero(x: Tensor) -> Tensor:
    """Indices of the elements that are not zero, one column each."""
    return torch.nonzero(x).T


@operator("Compress")
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """Slices along an axis (elements, without one) for which the condition holds."""
    chosen = torch.nonzero(condition).reshape(-1)
    return x.reshape(-1)[chosen] if axis is None else x.index_select(axis, chosen)


@operator("ReverseSequence")
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """Each sample's first `lengths` steps in reverse, the rest as they are."""
    steps = torch.arange(x.shape[time_axis], device=x.device)
    ends = lengths.unsqueeze(1)
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    if time_axis < batch_axis:
        places = places.T
    shape = [x.shape[axis] if axis in (batch_axis, time_axis) else 1 for axis in range(x.dim())]
    return torch.gather(x, time_axis, places.reshape(shape).expand_as(x))
