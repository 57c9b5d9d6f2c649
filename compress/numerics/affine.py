"""Affine quantization: ``values = clamp(round(w / scale) + zero_point)``, rounded half to even as in ONNX.

Zero is always represented exactly and zero points are always integers. The range is the one that
the weights span, or the one with the least squared error (`method="mse"`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from compress.numerics.granularity import Granularity

Method = Literal["minmax", "mse"]

CLIP_RATIOS = tuple(0.94**step for step in range(-2, 22))
"""Tried by the mse search, as fractions of the range that the weights span."""
CHUNK = 1 << 17
"""Elements searched at once: small enough for a core's cache, so that memory stays bounded too."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A quantized tensor, unpacked.

    Attributes:
        values: integers in the tensor's own shape (int8 or uint8 up to 8 bits).
        scale: float32 or, to be stored so, float16 (`half_scales`), in the shape that `granularity` gives
            (ONNX's layout); the mse search may make it negative at 4 bits and fewer, unless the range
            is narrow.
        zero_point: integers of the same type as `values`, shape of `scale`.
        granularity: which elements share a scale.
        bits: bits that the values use; see `stored_bits` for what a file takes.
        signed: whether values are two's complement.
    """

    values: Tensor
    scale: Tensor
    zero_point: Tensor
    granularity: Granularity
    bits: int
    signed: bool

    def dequantize(self) -> Tensor:
        """Return ``(values - zero_point) * scale`` as float32."""
        shape = tuple(self.values.shape)
        exact = torch.float64 if self.bits > 16 else torch.float32
        zero_point = self.granularity.expand(self.zero_point.to(exact), shape)
        return ((self.values.to(exact) - zero_point) * self.granularity.expand(self.scale, shape)).float()

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is the middle of the range, so that none needs to be stored."""
        middle = 0 if self.signed else 1 << (self.bits - 1)
        return bool((self.zero_point.to(torch.int64) == middle).all())

    @property
    def stored_bits(self) -> int:
        """Bits of one value in a file: the next of 2, 4, 8, 16, 32."""
        return stored_bits(self.bits)

    @property
    def bytes(self) -> int:
        """Bytes in a file: packed values, scales, and zero points unless symmetric."""
        integers = [self.values.numel(), 0 if self.symmetric else self.zero_point.numel()]
        return sum(-(-count * self.stored_bits // 8) for count in integers) + self.scale.nbytes

    def half_scales(self) -> Quantized:
        """Return the same integers with scales in float16, or itself if that would move one by 0.1 %."""
        half = self.scale.half()
        exact = torch.allclose(half.float(), self.scale.float(), rtol=1e-3, atol=0)
        return replace(self, scale=half) if exact else self

    def relative_error(self, weight: Tensor) -> float:
        """Return ``|weight - dequantized| / |weight|`` in the Frobenius norm; 0 for an all-zero weight."""
        norm = torch.linalg.vector_norm(weight.float())
        return float(torch.linalg.vector_norm(weight.float() - self.dequantize()) / norm) if norm > 0 else 0.0


def stored_bits(bits: int) -> int:
    """Return the bits that a file spends on a value of `bits`: the next of 2, 4, 8, 16, 32."""
    return next(size for size in (2, 4, 8, 16, 32) if bits <= size)


def limits(bits: int, *, signed: bool = True, narrow: bool = False) -> tuple[int, int]:
    """Return the lowest and highest integer of a range; `narrow` leaves out the lowest (-127 to 127)."""
    if not 2 <= bits <= 32:
        raise ValueError(f"{bits} bits: a range has 2 to 32")
    low = -(1 << (bits - 1)) if signed else 0
    return low + narrow, low + (1 << bits) - 1


def quantize(
    weight: Tensor,
    granularity: Granularity,
    bits: int,
    *,
    symmetric: bool = True,
    signed: bool = True,
    narrow: bool = False,
    method: Method = "minmax",
    importance: Tensor | None = None,
    scale: Tensor | None = None,
    zero_point: Tensor | None = None,
) -> Quantized:
    """Quantize a tensor of any rank to the nearest integers.

    Seven bits keep U8S8 kernels without VNNI from saturating (two products of 255 and -64 fit into
    16 bits); they are stored in eight.

    Args:
        weight: floating-point tensor.
        granularity: which elements share a scale.
        bits: 2 to 32.
        symmetric: zero point in the middle of the range; else the range follows the data.
        signed: two's complement values, or from zero.
        narrow: leave out the lowest integer, so that the range is symmetric (-127 to 127).
        method: range from the extremes, or searched for the least squared error.
        importance: weight of each squared error in the mse search, broadcastable to `weight`: the mean
            square of a layer's inputs, or the weight's own magnitude, which without data keeps
            language models (not every other) more accurate.
        scale: use these scales, shape ``granularity.scale_shape(weight.shape)``, and search none.
        zero_point: zero points that go with `scale`; the middle of the range if left out.

    Raises:
        ValueError: the weight holds NaN or infinite values (the message gives the index), or bits,
            axis or shape of the scale do not fit.
    """
    require_finite(weight)
    exact = weight.to(torch.float64 if bits > 16 else torch.float32)
    low, high = limits(bits, signed=signed, narrow=narrow)
    shape = tuple(weight.shape)
    if scale is None:
        scale, zero_point = tensor_ranges(
            exact, granularity, low, high, symmetric=symmetric, method=method, importance=importance
        )
    elif zero_point is None:
        zero_point = torch.full_like(scale, (low + high + 1) // 2)
    assert zero_point is not None
    scale_shape = granularity.scale_shape(shape)
    if scale.numel() != torch.Size(scale_shape).numel():
        raise ValueError(f"scale of shape {list(scale.shape)} where {granularity} takes {list(scale_shape)}")
    scale, zero_point = scale.float().reshape(scale_shape), zero_point.to(exact.dtype).reshape(scale_shape)
    values = (exact / granularity.expand(scale, shape)).round_()
    values = values.add_(granularity.expand(zero_point, shape)).clamp_(low, high)
    dtype = integer_type(bits, signed=signed)
    return Quantized(values.to(dtype), scale, zero_point.to(dtype), granularity, bits, signed)


def tensor_ranges(
    weight: Tensor,
    granularity: Granularity,
    low: int,
    high: int,
    *,
    symmetric: bool = True,
    method: Method = "minmax",
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return scales and zero points, float, in the shape that `granularity` gives; see `choose_range`."""
    shape = tuple(weight.shape)
    factors = None if importance is None else granularity.rows(importance.float().expand(shape))
    scale, zero_point = choose_range(
        granularity.rows(weight), low, high, symmetric=symmetric, method=method, importance=factors
    )
    scale_shape = granularity.scale_shape(shape)
    return scale.reshape(scale_shape), zero_point.reshape(scale_shape)


def choose_range(
    rows: Tensor,
    low: int,
    high: int,
    *,
    symmetric: bool = True,
    method: Method = "minmax",
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return scale and zero point, both float [R], for each row of [R, elements].

    The mse search tries `CLIP_RATIOS` of the full range; for the integers q that one gives, the
    best scale is the least-squares one, ``<w, q> / <q, q>``, and the error that remains is
    ``<w, w> - <w, q>² / <q, q>``. Symmetric ranges of up to 4 bits have one more integer below zero
    than above; the search gives it to a row's largest weight by letting scales be negative.

    Args:
        rows: [R, elements], finite.
        low: lowest integer.
        high: highest integer.
        symmetric: zero point in the middle of the range.
        method: "minmax" or "mse".
        importance: [R, elements], weight of each squared error; "mse" only.
    """
    if rows.shape[1] == 0:
        return rows.new_ones(rows.shape[0]), rows.new_full((rows.shape[0],), (low + high + 1) // 2)
    bottom, top = (end.clone() for end in rows.aminmax(dim=1))
    scale, zero_point = range_to_scale(bottom, top, low, high, symmetric=symmetric)
    if method == "minmax":
        return scale, zero_point
    best = torch.zeros_like(scale)
    best_scale, best_zero = scale.clone(), zero_point.clone()
    plain = torch.ones_like(scale)
    flips = symmetric and high - low < 16 and low + high != 2 * ((low + high + 1) // 2)
    sign = torch.where(top > -bottom, -1.0, 1.0).to(scale) if flips else plain
    for ratio, side in [(1.0, plain), *((ratio, sign) for ratio in CLIP_RATIOS)]:
        scale, zero_point = range_to_scale(bottom * ratio, top * ratio, low, high, symmetric=symmetric)
        product, square = _sums(rows, scale * side, low - zero_point, high - zero_point, importance)
        gain = torch.where(square > 0, product * product / square, 0.0)
        better = gain > best
        best = torch.where(better, gain, best)
        best_scale = torch.where(better, product / square, best_scale)
        best_zero = torch.where(better, zero_point, best_zero)
    return best_scale, best_zero


def range_to_scale(
    bottom: Tensor, top: Tensor, low: int, high: int, *, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """Return scale and integer zero point (both float) that map [bottom, top] onto [low, high].

    The range is widened to include zero. A range of no width (all weights zero) has scale 1.
    """
    bottom, top = bottom.clamp(max=0), top.clamp(min=0)
    steps = high - low
    # The ends are divided before they are added, for their distance may overflow.
    scale = torch.maximum(-bottom, top) * (2 / steps) if symmetric else top / steps - bottom / steps
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale)
    if symmetric:
        return scale, torch.full_like(scale, (low + high + 1) // 2)
    return scale, (low - (bottom / scale).round()).clamp(low, high)


def _sums(
    rows: Tensor, scale: Tensor, low: Tensor, high: Tensor, importance: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return ``<w, q>`` and ``<q, q>`` of every row [R] for the integers q within [low, high] [R]."""
    product, square = torch.zeros_like(scale), torch.zeros_like(scale)
    width = min(rows.shape[1], CHUNK)
    height = max(1, CHUNK // width)
    for top in range(0, rows.shape[0], height):
        r = slice(top, top + height)
        for left in range(0, rows.shape[1], width):
            block = rows[r, left : left + width]
            q = (block / scale[r, None]).round_()
            q = torch.minimum(torch.maximum(q, low[r, None]), high[r, None])
            weighted = q if importance is None else q * importance[r, left : left + width]
            product[r] += (block * weighted).sum(1)
            square[r] += (q * weighted).sum(1)
    return product, square


def integer_type(bits: int, *, signed: bool) -> torch.dtype:
    """Return the smallest torch type that holds integers of `bits`."""
    sizes = {8: (torch.uint8, torch.int8), 16: (torch.uint16, torch.int16), 32: (torch.uint32, torch.int32)}
    return sizes[max(8, stored_bits(bits))][signed]


def require_finite(tensor: Tensor) -> None:
    """Raise ValueError with the first index at which `tensor` is NaN or infinite."""
    finite = torch.isfinite(tensor)
    if not finite.all():
        index = (~finite).nonzero()[0].tolist()
        raise ValueError(f"value {float(tensor[tuple(index)])} at index {index}: cannot be quantized")
