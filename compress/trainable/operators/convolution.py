"""Convolutions, and the reverse of cutting images into columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.table import Ints, Weight, operator

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class Sliding(TypedDict, total=False):
    """Attributes of every operator that slides a window over spatial axes."""

    auto_pad: str
    dilations: Sequence[int]
    pads: Sequence[int]
    strides: Sequence[int]


def steps_and_gaps(rank: int, sliding: Sliding) -> tuple[list[int], list[int]]:
    """Return strides and dilations of each spatial axis."""
    return list(sliding.get("strides") or [1] * rank), list(sliding.get("dilations") or [1] * rank)


def same_padding(size: int, window: int, stride: int, *, lower: bool) -> tuple[int, int]:
    """Return what to add at both ends so that ``ceil(size / stride)`` windows fit."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def window_padding(
    x: Tensor, windows: Sequence[int], strides: Sequence[int], sliding: Sliding
) -> list[tuple[int, int]]:
    """Return (begin, end) of each spatial axis of `x`, explicit or by `auto_pad`."""
    auto_pad, pads = sliding.get("auto_pad", "NOTSET"), sliding.get("pads")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return [
            same_padding(size, window, stride, lower=auto_pad == "SAME_LOWER")
            for size, window, stride in zip(x.shape[2:], windows, strides, strict=True)
        ]
    if pads is None or auto_pad == "VALID":
        return [(0, 0)] * len(windows)
    return list(zip(pads[: len(windows)], pads[len(windows) :], strict=True))


def pad_amounts(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return (begin, end) of each axis in the order of `F.pad`: last axis first."""
    return [amount for pair in reversed(padding) for amount in pair]


@operator("Conv")
def convolution(
    x: Tensor,
    weight: Weight,
    bias: Weight | None = None,
    *,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    **sliding: Unpack[Sliding],
) -> Tensor:
    """Convolution of [N, C, ...] with kernels [M, C / group, ...]."""
    rank = weight.dim() - 2
    steps, spread = steps_and_gaps(rank, sliding)
    windows = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], spread, strict=True)]
    padding = window_padding(x, windows, steps, sliding)
    if any(begin != end for begin, end in padding):
        x = F.pad(x, pad_amounts(padding))
        padding = [(0, 0)] * rank
    both = [begin for begin, _ in padding]
    result: Tensor = _CONVOLUTIONS[rank - 1](x, weight, bias, steps, both, spread, group)
    return result


@operator("ConvTranspose")
def transposed_convolution(
    x: Tensor,
    weight: Weight,
    bias: Weight | None = None,
    *,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    **sliding: Unpack[Sliding],
) -> Tensor:
    """Gradient of a convolution by its input: [N, C, ...] with kernels [C, M / group, ...]."""
    rank = weight.dim() - 2
    steps, spread = steps_and_gaps(rank, sliding)
    extra = list(output_padding or [0] * rank)
    full = _TRANSPOSED[rank - 1](x, weight, None, steps, 0, 0, group, spread)
    wanted = output_shape
    auto_pad = sliding.get("auto_pad")
    if wanted is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * step for size, step in zip(x.shape[2:], steps, strict=True)]
    if wanted is None:
        crops = window_padding(x, steps, steps, sliding)
    else:
        totals = [have + more - want for have, more, want in zip(full.shape[2:], extra, wanted, strict=True)]
        halves = [(total // 2, total - total // 2) for total in totals]
        crops = halves if auto_pad == "SAME_UPPER" else [(large, small) for small, large in halves]
    change = [(-begin, more - end) for (begin, end), more in zip(crops, extra, strict=True)]
    if any(pair != (0, 0) for pair in change):
        full = F.pad(full, pad_amounts(change))
    return full if bias is None else full + bias.reshape(-1, *([1] * rank))


@operator("Col2Im")
def columns_to_image(
    x: Tensor,
    image_shape: Ints,
    block_shape: Ints,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Add columns [N, C prod(block), L] up to an image [N, C, ...]."""
    rank = len(image_shape)
    steps, spread = strides or [1] * rank, dilations or [1] * rank
    padding = window_padding(x, block_shape, steps, {"pads": pads} if pads else {})
    padded = [size + begin + end for size, (begin, end) in zip(image_shape, padding, strict=True)]
    # Which padded pixel each entry of a column came from.
    places = torch.arange(math.prod(padded), device=x.device).reshape(padded)
    for axis, (size, step, gap) in enumerate(zip(block_shape, steps, spread, strict=True)):
        places = places.unfold(axis, (size - 1) * gap + 1, step)[..., ::gap]
    order = [*range(rank, 2 * rank), *range(rank)]
    places = places.permute(order).reshape(-1)
    columns = x.reshape(x.shape[0], -1, places.numel())
    image = columns.new_zeros(*columns.shape[:2], math.prod(padded)).index_add(2, places, columns)
    image = image.reshape(*columns.shape[:2], *padded)
    return F.pad(image, pad_amounts([(-begin, -end) for begin, end in padding]))
