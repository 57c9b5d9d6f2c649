"""Pooling over windows and over everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.convolution import Sliding, pad_amounts, steps_and_gaps, window_padding
from compress.trainable.operators.table import Ints, operator

_MAX_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE_POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


@dataclass(frozen=True, slots=True)
class _Windows:
    """Where pooling windows lie: all sequences hold one entry for each spatial axis."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    padding: list[tuple[int, int]]
    overhang: list[int]
    """What the last window needs beyond the padding when sizes are rounded up."""

    @classmethod
    def over(
        cls,
        x: Tensor,
        kernel: Sequence[int],
        ceil_mode: int,
        sliding: Sliding,
    ) -> _Windows:
        rank = len(kernel)
        steps, gaps = steps_and_gaps(rank, sliding)
        extents = [(size - 1) * gap + 1 for size, gap in zip(kernel, gaps, strict=True)]
        padding = window_padding(x, extents, steps, sliding)
        overhang = [0] * rank
        if ceil_mode:
            for axis, (begin, end) in enumerate(padding):
                room = x.shape[2 + axis] + begin + end - extents[axis]
                count = -(-room // steps[axis])
                # A window must start inside the image or its left padding.
                if count * steps[axis] < x.shape[2 + axis] + begin:
                    overhang[axis] = max(count * steps[axis] - room, 0)
        return cls(list(kernel), steps, gaps, padding, overhang)

    @property
    def symmetric(self) -> bool:
        """Whether torch's pooling functions can pad by themselves."""
        return not any(self.overhang) and all(
            begin == end <= size // 2 for (begin, end), size in zip(self.padding, self.kernel, strict=True)
        )

    @property
    def amounts(self) -> list[int]:
        """Padding with the overhang, for `F.pad`."""
        pairs = [(begin, end + more) for (begin, end), more in zip(self.padding, self.overhang, strict=True)]
        return pad_amounts(pairs)

    def sums(self, padded: Tensor) -> Tensor:
        """Return the sum of each window of an already padded tensor."""
        for axis, (size, step, gap) in enumerate(zip(self.kernel, self.strides, self.dilations, strict=True)):
            padded = padded.unfold(2 + axis, (size - 1) * gap + 1, step)[..., ::gap].sum(-1)
        return padded


@operator("MaxPool")
def max_pool(
    x: Tensor,
    *,
    ceil_mode: int = 0,
    kernel_shape: Sequence[int],
    storage_order: int = 0,
    outputs: int,
    **sliding: Unpack[Sliding],
) -> tuple[Tensor, ...]:
    """Largest element of each window, and on request its index in the flattened input."""
    windows = _Windows.over(x, kernel_shape, ceil_mode, sliding)
    exact = x if x.is_floating_point() else x.double()
    rank = len(kernel_shape)
    padding = [begin for begin, _ in windows.padding]
    if not windows.symmetric:
        exact = F.pad(exact, windows.amounts, value=-torch.inf)
        padding = [0] * rank
    pool = _MAX_POOLS[rank - 1]
    if outputs == 1:
        best = pool(exact, windows.kernel, windows.strides, padding, windows.dilations)
        return (best.to(x.dtype),)
    best, places = pool(
        exact, windows.kernel, windows.strides, padding, windows.dilations, return_indices=True
    )
    moved = [0] * rank if windows.symmetric else [begin for begin, _ in windows.padding]
    return best.to(x.dtype), _flat_indices(places, exact.shape[2:], moved, x, storage_order)


def _flat_indices(
    places: Tensor, plane: Sequence[int], moved: Sequence[int], x: Tensor, column_major: int
) -> Tensor:
    """Turn positions in a padded plane into positions in the whole of `x`."""
    coordinates = []
    for size, begin in zip(reversed(plane), reversed(moved), strict=True):
        coordinates.append(places % size - begin)
        places = places // size
    sizes = list(x.shape[2:])
    if not column_major:
        coordinates.reverse()
    else:
        sizes.reverse()
    flat = torch.zeros_like(places)
    for coordinate, size in zip(coordinates, sizes, strict=True):
        flat = flat * size + coordinate
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device) * math.prod(sizes)
    return flat + planes.reshape(*x.shape[:2], *([1] * len(sizes)))


@operator("MaxUnpool")
def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Ints | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Put elements back where a max pooling took them from, zeros elsewhere."""
    rank = len(kernel_shape)
    steps = strides or [1] * rank
    padding = window_padding(x, kernel_shape, steps, {"pads": pads} if pads else {})
    sizes = [
        (size - 1) * step + kernel - begin - end
        for size, step, kernel, (begin, end) in zip(x.shape[2:], steps, kernel_shape, padding, strict=True)
    ]
    wanted = list(output_shape) if output_shape is not None else [*x.shape[:2], *sizes]
    source = [*x.shape[:2], *sizes]
    # Indices count in the flattened tensor that was pooled, whatever shape is wanted now.
    flat = x.new_zeros(math.prod(source)).scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(source)
    more = [(0, want - have) for want, have in zip(wanted[2:], sizes, strict=True)]
    return F.pad(flat, pad_amounts(more))


@operator("AveragePool")
def average_pool(
    x: Tensor,
    *,
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Sequence[int],
    **sliding: Unpack[Sliding],
) -> Tensor:
    """Mean of each window, of its padding too with `count_include_pad`."""
    windows = _Windows.over(x, kernel_shape, ceil_mode, sliding)
    if windows.symmetric and set(windows.dilations) == {1}:
        padding = [begin for begin, _ in windows.padding]
        pool = _AVERAGE_POOLS[len(kernel_shape) - 1]
        result: Tensor = pool(
            x, windows.kernel, windows.strides, padding, count_include_pad=bool(count_include_pad)
        )
        return result
    ones = torch.ones_like(x[:1, :1])
    if count_include_pad:
        ones = F.pad(ones, pad_amounts(windows.padding), value=1.0)
        counted = F.pad(ones, pad_amounts([(0, more) for more in windows.overhang]))
    else:
        counted = F.pad(ones, windows.amounts)
    return windows.sums(F.pad(x, windows.amounts)) / windows.sums(counted)


@operator("LpPool")
def lp_pool(
    x: Tensor,
    *,
    ceil_mode: int = 0,
    kernel_shape: Sequence[int],
    p: int = 2,
    **sliding: Unpack[Sliding],
) -> Tensor:
    """The p-norm of each window."""
    windows = _Windows.over(x, kernel_shape, ceil_mode, sliding)
    return windows.sums(F.pad(x, windows.amounts).abs().pow(p)).pow(1.0 / p)


@operator("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    """Mean over all spatial dimensions, which stay with size one."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    """Maximum over all spatial dimensions, which stay with size one."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)
