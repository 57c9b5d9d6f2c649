"""Shapes, and moving elements without computing with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.convolution import pad_amounts
from compress.trainable.operators.table import Either, Int, Ints, Number, operator, torch_type


@operator("Shape")
def shape_of(x: Tensor, *, start: int = 0, end: int | None = None) -> list[int]:
    """Sizes of the dimensions from `start` to `end`, as host integers."""
    return list(x.shape)[start:end]


@operator("Size")
def size_of(x: Tensor) -> int:
    """Number of elements, as a host integer."""
    return x.numel()


@operator("Reshape")
def reshape(x: Tensor, shape: Ints, *, allowzero: int = 0) -> Tensor:
    """`x` in another shape; 0 copies a size unless `allowzero`, -1 takes what is left."""
    if not allowzero and 0 in shape:
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return x.reshape(shape)


@operator("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """A matrix: the dimensions before `axis`, by those from it on."""
    rows = math.prod(x.shape[:axis])
    return x.reshape(rows, x.numel() // rows if rows else math.prod(x.shape[axis:]))


@operator("Squeeze", attributes=["axes"])
@operator("Squeeze", since=13)
def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Remove dimensions of size one."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("Unsqueeze", attributes=["axes"])
@operator("Unsqueeze", since=13)
def unsqueeze(x: Tensor, axes: Ints) -> Tensor:
    """Insert dimensions of size one, at positions counted in the result."""
    wanted = [axes] if isinstance(axes, int) else axes
    rank = x.dim() + len(wanted)
    for axis in sorted(axis % rank for axis in wanted):
        x = x.unsqueeze(axis)
    return x


@operator("Transpose")
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Permute the dimensions; by default reverse them."""
    return x.permute(tuple(perm) if perm is not None else tuple(reversed(range(x.dim()))))


@operator("Concat")
def concat(*inputs: Tensor, axis: int) -> Tensor:
    """Join along an axis."""
    return torch.cat(inputs, axis)


@operator("Split", attributes=["split"])
@operator("Split", since=13)
def split_(
    x: Tensor, split: Ints | None = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int
) -> tuple[Tensor, ...]:
    """Cut along an axis into parts of given sizes, or into equal parts of which the last may be smaller."""
    if split is None:
        count = num_outputs or outputs
        part = -(-x.shape[axis] // count)
        split = [min(part, x.shape[axis] - start) for start in range(0, part * count, part)]
    return torch.split(x, split, axis)


@operator("Slice")
def slice_(
    x: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None
) -> Tensor:
    """Every `steps`-th element from `starts` to `ends` along some axes; a negative step goes backwards."""
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    index = [slice(None)] * x.dim()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step > 0:
            index[axis] = slice(start, end, step)
        else:
            chosen = list(range(*slice(start, end, step).indices(x.shape[axis])))
            x = x.index_select(axis, torch.tensor(chosen, dtype=torch.int64, device=x.device))
    return x[tuple(index)]


@operator("Expand")
def expand(x: Tensor, shape: Ints) -> Tensor:
    """Broadcast `x` and a shape against each other."""
    missing = len(shape) - x.dim()
    sizes = [1] * -missing + shape if missing < 0 else shape
    own = [1] * missing + list(x.shape) if missing > 0 else list(x.shape)
    return x.expand([want if have == 1 else have for have, want in zip(own, sizes, strict=True)])


@operator("Tile")
def tile(x: Tensor, repeats: Ints) -> Tensor:
    """Repeat `x` along every dimension."""
    return x.repeat(repeats)


@operator("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Move channels into blocks of space: [N, C, H, W] to [N, C/b², Hb, Wb]."""
    n, c, h, w = x.shape
    if mode == "DCR":
        blocks = x.reshape(n, blocksize, blocksize, c // blocksize**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, c // blocksize**2, blocksize, blocksize, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, c // blocksize**2, h * blocksize, w * blocksize)


@operator("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Move blocks of space into channels: [N, C, H, W] to [N, Cb², H/b, W/b]."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.permute(order).reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


@operator("Pad")
def pad(
    x: Tensor, pads: Ints, value: Number | None = None, axes: Ints | None = None, *, mode: str = "constant"
) -> Tensor:
    """Add elements at the ends of some axes, or remove them where a number is negative."""
    fill = value[0] if isinstance(value, list) else value or 0
    axes = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
    begins, ends = pads[: len(axes)], pads[len(axes) :]
    if mode == "constant":
        padding = dict(zip(axes, zip(begins, ends, strict=True), strict=True))
        amounts = pad_amounts([padding.get(axis, (0, 0)) for axis in range(x.dim())])
        return F.pad(x, amounts, value=fill)
    for axis, begin, end in zip(axes, begins, ends, strict=True):
        if begin or end:
            x = x.index_select(axis, _padded_positions(x.shape[axis], begin, end, mode, x.device))
    return x


def _padded_positions(size: int, begin: int, end: int, mode: str, device: torch.device) -> Tensor:
    """Return which element stands at each place of the padded axis."""
    places = torch.arange(-begin, size + end, device=device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        places = places % period
        return torch.minimum(places, period - places)
    raise NotImplementedError(f"padding mode {mode!r} is not supported")


@operator("Range")
def range_(start: Either, limit: Either, delta: Either, *, device: torch.device) -> Tensor:
    """Numbers from `start` to before `limit` in steps of `delta`."""
    bounds = (start, limit, delta)
    whole = torch.int64 if all(isinstance(bound, int) for bound in bounds) else torch.float32
    dtype = next((bound.dtype for bound in bounds if isinstance(bound, Tensor)), whole)
    first, last, step = (bound.item() if isinstance(bound, Tensor) else bound for bound in bounds)
    count = max(math.ceil((last - first) / step), 0)
    return torch.arange(count, dtype=dtype, device=device) * step + first


@operator("ConstantOfShape")
def constant_of_shape(shape: Ints, *, value: ir.TensorProtocol | None = None, device: torch.device) -> Tensor:
    """One number repeated in a shape; float zero by default."""
    if value is None:
        return torch.zeros(shape, device=device)
    return torch.full(shape, value.numpy().item(), dtype=torch_type(value.dtype), device=device)


@operator("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on the `k`-th diagonal of a matrix shaped like `x`."""
    ones = torch.ones_like(x, dtype=x.dtype if dtype is None else torch_type(dtype))
    return ones.triu(k).tril(k)


@operator("Trilu")
def triangle(x: Tensor, k: Int = 0, *, upper: int = 1) -> Tensor:
    """The upper or lower triangle of the last two dimensions, from the `k`-th diagonal on."""
    return torch.triu(x, k) if upper else torch.tril(x, k)
