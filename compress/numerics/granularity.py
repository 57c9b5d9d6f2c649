"""Which weights share a scale: the whole tensor, a slice along one axis, or a run of a fixed length.

Each granularity gives the shape of ``scale`` in ONNX's DequantizeLinear, and arranges a tensor as one row for
each scale, the form that all searches work on. The module does not import torch, so that settings and recipes
may name a granularity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor."""

    def __str__(self) -> str:
        return "per tensor"

    def scale_shape(self, shape: Shape) -> Shape:
        """Return the shape of the scales of a tensor of `shape`: ``()``."""
        return ()

    def rows(self, tensor: Tensor) -> Tensor:
        """Return `tensor` as [1, elements]."""
        return tensor.reshape(1, -1)

    def from_rows(self, rows: Tensor, shape: Shape) -> Tensor:
        """Undo `rows`: return the tensor of `shape`."""
        return rows.reshape(shape)

    def expand(self, scale: Tensor, shape: Shape) -> Tensor:
        """Return `scale` in a form that broadcasts against a tensor of `shape`."""
        return scale


@dataclass(frozen=True)
class PerAxis:
    """One scale for each index of `axis`; a negative axis counts from the end."""

    axis: int

    def __str__(self) -> str:
        return f"per axis {self.axis}"

    def scale_shape(self, shape: Shape) -> Shape:
        """Return the shape of the scales of a tensor of `shape`: ``(shape[axis],)``."""
        return (shape[_checked(self.axis, shape)],)

    def rows(self, tensor: Tensor) -> Tensor:
        """Return `tensor` as [scales, elements that share one]."""
        moved = tensor.movedim(_checked(self.axis, tuple(tensor.shape)), 0)
        return moved.reshape(moved.shape[0], math.prod(moved.shape[1:])).contiguous()

    def from_rows(self, rows: Tensor, shape: Shape) -> Tensor:
        """Undo `rows`: return the tensor of `shape`."""
        axis = _checked(self.axis, shape)
        moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
        return rows.reshape(moved).movedim(0, axis).contiguous()

    def expand(self, scale: Tensor, shape: Shape) -> Tensor:
        """Return `scale` in a form that broadcasts against a tensor of `shape`."""
        axis = _checked(self.axis, shape)
        return scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])


@dataclass(frozen=True)
class PerGroup:
    """One scale for each run of `size` elements along `axis`; the last run may be shorter.

    For a linear weight [K, N] (K input features) groups run along axis 0, and the scales are
    [ceil(K / size), N]: the layout of ONNX's blocked quantization.
    """

    size: int
    axis: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"group size {self.size}: at least one weight must share a scale")

    def __str__(self) -> str:
        return f"groups of {self.size} along axis {self.axis}"

    def scale_shape(self, shape: Shape) -> Shape:
        """Return the shape of the scales of a tensor of `shape`: `axis` divided by `size`, rounded up."""
        axis = _checked(self.axis, shape)
        return (*shape[:axis], -(-shape[axis] // self.size), *shape[axis + 1 :])

    def rows(self, tensor: Tensor) -> Tensor:
        """Return `tensor` as [scales, size]; a shorter last group is padded with zeros."""
        shape = tuple(tensor.shape)
        axis = _checked(self.axis, shape)
        groups = self.scale_shape(shape)[axis]
        if groups * self.size != shape[axis]:
            filled = tensor.new_zeros((*shape[:axis], groups * self.size, *shape[axis + 1 :]))
            filled.narrow(axis, 0, shape[axis]).copy_(tensor)
            tensor = filled
        split = tensor.reshape(*shape[:axis], groups, self.size, *shape[axis + 1 :])
        return split.movedim(axis + 1, -1).reshape(-1, self.size)

    def from_rows(self, rows: Tensor, shape: Shape) -> Tensor:
        """Undo `rows`: return the tensor of `shape`, without the padding."""
        axis = _checked(self.axis, shape)
        split = rows.reshape(*self.scale_shape(shape), self.size).movedim(-1, axis + 1)
        return split.flatten(axis, axis + 1).narrow(axis, 0, shape[axis]).contiguous()

    def expand(self, scale: Tensor, shape: Shape) -> Tensor:
        """Return `scale` in a form that broadcasts against a tensor of `shape`."""
        axis = _checked(self.axis, shape)
        return scale.repeat_interleave(self.size, axis).narrow(axis, 0, shape[axis])


Granularity: TypeAlias = PerTensor | PerAxis | PerGroup


def _checked(axis: int, shape: Shape) -> int:
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} is outside a tensor of shape {list(shape)}")
    return axis % len(shape)
