"""Resizing and sampling of images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.convolution import pad_amounts
from compress.trainable.operators.table import Ints, Numbers, operator


@operator("Resize")
def resize(
    x: Tensor,
    roi: Numbers | None = None,
    scales: Numbers | None = None,
    sizes: Ints | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Resample along each axis in turn: interpolation is separable."""
    dims = [axis % x.dim() for axis in axes] if axes is not None else list(range(x.dim()))
    factors, wanted = _targets([x.shape[dim] for dim in dims], scales, sizes, keep_aspect_ratio_policy)
    exact = x if x.is_floating_point() else x.double()
    for place, (dim, factor, size) in enumerate(zip(dims, factors, wanted, strict=True)):
        crop = (roi[place], roi[place + len(dims)]) if roi else (0.0, 1.0)
        if factor == 1.0 and size == exact.shape[dim] and crop == (0.0, 1.0):
            continue
        places = _source(coordinate_transformation_mode, exact.shape[dim], size, factor, crop)
        places = places.to(x.device)
        if mode == "nearest":
            exact = exact.index_select(dim, _nearest(places, exact.shape[dim], nearest_mode))
        else:
            cubic = cubic_coeff_a if mode == "cubic" else None
            squeeze = min(factor, 1.0) if antialias else 1.0
            weights = _weights(places, exact.shape[dim], cubic, squeeze, bool(exclude_outside))
            exact = (exact.movedim(dim, -1) @ weights.to(exact.dtype).T).movedim(-1, dim)
        if coordinate_transformation_mode == "tf_crop_and_resize":
            outside = (places < 0) | (places > x.shape[dim] - 1)
            outside = outside.reshape([size if axis == dim else 1 for axis in range(x.dim())])
            exact = exact.masked_fill(outside, extrapolation_value)
    return exact.to(x.dtype)


def _targets(
    have: list[int], scales: list[float] | None, sizes: list[int] | None, policy: str
) -> tuple[list[float], list[int]]:
    """Return the factor and the new size of each resized axis."""
    if not sizes:
        factors = list(scales or [])
        return factors, [math.floor(size * factor) for size, factor in zip(have, factors, strict=True)]
    factors = [want / size for want, size in zip(sizes, have, strict=True)]
    if policy == "stretch":
        return factors, sizes
    one = min(factors) if policy == "not_larger" else max(factors)
    return [one] * len(have), [math.floor(one * size + 0.5) for size in have]


def _source(mode: str, have: int, size: int, factor: float, crop: tuple[float, float]) -> Tensor:
    """Return where each output element lies on the input axis (float64)."""
    places = torch.arange(size, dtype=torch.float64)
    length = factor * have
    if mode == "align_corners":
        return places * ((have - 1) / (length - 1)) if length != 1 else torch.zeros_like(places)
    if mode == "asymmetric":
        return places / factor
    if mode == "tf_half_pixel_for_nn":
        return (places + 0.5) / factor
    if mode == "tf_crop_and_resize":
        start, end = crop
        if length == 1:
            return torch.full_like(places, (start + end) / 2 * (have - 1))
        return places * ((end - start) * (have - 1) / (length - 1)) + start * (have - 1)
    if mode == "pytorch_half_pixel" and length == 1:
        return torch.full_like(places, -0.5)
    shift = have / 2 * (1 - size / length) if mode == "half_pixel_symmetric" else 0.0
    if mode not in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"):
        raise NotImplementedError(f"coordinate_transformation_mode {mode!r} is not supported")
    return shift + (places + 0.5) / factor - 0.5


def _nearest(places: Tensor, have: int, mode: str) -> Tensor:
    """Return the input element nearest to each place."""
    if mode == "round_prefer_floor":
        nearest = torch.ceil(places - 0.5)
    elif mode == "round_prefer_ceil":
        nearest = torch.floor(places + 0.5)
    else:
        nearest = torch.floor(places) if mode == "floor" else torch.ceil(places)
    return nearest.long().clamp(0, have - 1)


def _weights(places: Tensor, have: int, cubic: float | None, squeeze: float, inside_only: bool) -> Tensor:
    """Return the matrix [size, have] that interpolates linearly, or by cubic convolution.

    `squeeze` below one widens the kernel by its inverse (antialiasing). Cubic convolution is equation
    (4) of Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    reach = math.ceil((1 if cubic is None else 2) / squeeze)
    neighbours = places.floor().long().unsqueeze(1) + torch.arange(1 - reach, reach + 1, device=places.device)
    distance = ((neighbours - places.unsqueeze(1)) * squeeze).abs()
    if cubic is None:
        weights = (1 - distance).clamp(min=0)
    else:
        near = ((cubic + 2) * distance - (cubic + 3)) * distance**2 + 1
        far = ((cubic * distance - 5 * cubic) * distance + 8 * cubic) * distance - 4 * cubic
        weights = torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
    if inside_only:
        weights = weights.masked_fill((neighbours < 0) | (neighbours >= have), 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    return weights.new_zeros(len(places), have).scatter_add(1, neighbours.clamp(0, have - 1), weights)


@operator("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    """Elements of `x` at the coordinates of a grid, which run from -1 to 1."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return F.grid_sample(x, grid, mode, padding_mode, bool(align_corners))


@operator("AffineGrid")
def affine_grid(theta: Tensor, size: Ints, *, align_corners: int = 0) -> Tensor:
    """Coordinates of a sampling grid moved by affine matrices."""
    return F.affine_grid(theta, size, bool(align_corners))


@operator("CenterCropPad")
def center_crop_pad(x: Tensor, shape: Ints, *, axes: Sequence[int] | None = None) -> Tensor:
    """Crop or pad with zeros around the middle to a shape."""
    dims = [axis % x.dim() for axis in axes] if axes is not None else list(range(x.dim()))
    padding = [(0, 0)] * x.dim()
    for dim, size in zip(dims, shape, strict=True):
        change = size - x.shape[dim]
        begin = change // 2 if change > 0 else -(-change // 2)
        padding[dim] = (begin, change - begin)
    return F.pad(x, pad_amounts(padding))
