"""Affine quantization: ``values = clamp(round(w / scale) + zero_point)``, rounded half to even as in ONNX.

Zero is always represented exactly and zero points are always integers. The range is the one that
the weights span, or the one with the least squared error (`IntegerFormat.method`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import Granularity

CLIP_RATIOS = tuple(0.94**step for step in range(-2, 22))
"""Ranges that the mse search tries, as fractions of the range that the weights span."""
SMALL_SCALE = 2.0**-14
"""Scale of integers that are all zero: the smallest normal number of float16."""
CHUNK = 1 << 17
"""Elements that are searched at once, few enough for a core's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A quantized tensor, unpacked.

    Attributes:
        values: integers in the tensor's own shape (int8 or uint8 up to 8 bits).
        scale: float32, or float16 after `half_scales`, in the shape that the granularity gives (ONNX's
            layout). With 4 bits and fewer, the mse search may make it negative, unless the range is narrow.
        zero_point: integers of the same type as `values`, shape of `scale`.
        format: what the values can be, and which of them share a scale.
    """

    values: Tensor
    scale: Tensor
    zero_point: Tensor
    format: IntegerFormat

    @property
    def granularity(self) -> Granularity:
        """Which elements share a scale."""
        return self.format.granularity

    @property
    def bits(self) -> int:
        """Bits of a value; `IntegerFormat.stored_bits` tells how many it takes in a file."""
        return self.format.bits

    def dequantize(self) -> Tensor:
        """Return ``(values - zero_point) * scale`` as float32."""
        shape = tuple(self.values.shape)
        exact = torch.float64 if self.bits > 16 else torch.float32
        zero_point = self.granularity.expand(self.zero_point.to(exact), shape)
        return ((self.values.to(exact) - zero_point) * self.granularity.expand(self.scale, shape)).float()

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is the middle of the range, so that none needs to be stored."""
        return bool((self.zero_point.to(torch.int64) == self.format.middle).all())

    def in_bits(self, least: int) -> Quantized:
        """Return the same signed integers in a format of at least so many bits; kernels read 8."""
        return replace(self, format=replace(self.format, bits=max(self.bits, least)))

    @property
    def bytes(self) -> int:
        """Bytes in a file: packed values, scales, and zero points unless symmetric."""
        integers = [self.values.numel(), 0 if self.symmetric else self.zero_point.numel()]
        return sum(-(-count * self.format.stored_bits // 8) for count in integers) + self.scale.nbytes

    def half_scales(self) -> Quantized:
        """Return the same integers with float16 scales, or this object if a scale would change by 0.1 %."""
        half = self.scale.half()
        exact = torch.allclose(half.float(), self.scale.float(), rtol=1e-3, atol=0)
        return replace(self, scale=half) if exact else self

    def relative_error(self, weight: Tensor) -> float:
        """Return ``|weight - dequantized| / |weight|`` in the Frobenius norm; 0 for an all-zero weight."""
        norm = torch.linalg.vector_norm(weight.float())
        return float(torch.linalg.vector_norm(weight.float() - self.dequantize()) / norm) if norm > 0 else 0.0


def split_columns(result: Quantized, widths: Sequence[int]) -> list[Quantized]:
    """Return matrices that stand side by side, with groups along their columns, one by one."""
    parts = [torch.split(each, list(widths), -1) for each in (result.values, result.scale, result.zero_point)]
    return [
        replace(result, values=values, scale=scale, zero_point=zero_point)
        for values, scale, zero_point in zip(*parts, strict=True)
    ]


def quantize(
    weight: Tensor,
    format: IntegerFormat,
    *,
    importance: Tensor | None = None,
    scale: Tensor | None = None,
    zero_point: Tensor | None = None,
) -> Quantized:
    """Quantize a tensor of any rank to the nearest integers.

    Args:
        weight: floating-point tensor.
        format: what the integers can be.
        importance: factor on each squared error in the mse search, broadcastable to `weight`: the mean
            square of a layer's inputs, or, without data, the weight's own magnitude, which keeps language
            models more accurate, though not every other model.
        scale: given scales, in the shape that the granularity gives for the weight; none are searched then.
        zero_point: zero points that go with `scale`; the middle of the range if left out.

    Raises:
        ValueError: the weight holds NaN or infinite values (the message gives the index), or
            axis or shape of the scale do not fit.
    """
    require_finite(weight)
    exact = weight.to(torch.float64 if format.bits > 16 else torch.float32)
    low, high = format.limits
    shape, granularity = tuple(weight.shape), format.granularity
    if scale is None:
        scale, zero_point = tensor_ranges(exact, format, importance)
    elif zero_point is None:
        zero_point = torch.full_like(scale, format.middle)
    assert zero_point is not None
    scale_shape = granularity.scale_shape(shape)
    if scale.numel() != torch.Size(scale_shape).numel():
        raise ValueError(f"scale of shape {list(scale.shape)} where {granularity} takes {list(scale_shape)}")
    scale, zero_point = scale.float().reshape(scale_shape), zero_point.to(exact.dtype).reshape(scale_shape)
    values = (exact / granularity.expand(scale, shape)).round_()
    values = values.add_(granularity.expand(zero_point, shape)).clamp_(low, high)
    dtype = integer_type(format)
    return Quantized(values.to(dtype), scale, zero_point.to(dtype), format)


def tensor_ranges(
    weight: Tensor, format: IntegerFormat, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return scales and zero points, float, in the shape that the granularity gives; see `choose_range`."""
    shape, granularity = tuple(weight.shape), format.granularity
    factors = None if importance is None else granularity.rows(importance.float().expand(shape))
    scale, zero_point = choose_range(granularity.rows(weight), format, factors)
    scale_shape = granularity.scale_shape(shape)
    return scale.reshape(scale_shape), zero_point.reshape(scale_shape)


def choose_range(
    rows: Tensor, format: IntegerFormat, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return scale and zero point, both float [R], for each row of [R, elements].

    The mse search tries `CLIP_RATIOS` of the full range; for the integers q that one gives, the
    best scale is the least-squares scale, ``<w, q> / <q, q>``, and the error that remains is
    ``<w, w> - <w, q>² / <q, q>``. Symmetric ranges of up to 4 bits have one more integer below zero
    than above; the search gives it to a row's largest weight by letting scales be negative.

    Args:
        rows: [R, elements], finite.
        format: what the integers can be; its granularity has made the rows and is not read.
        importance: [R, elements], factor on each squared error in the mse search.
    """
    if rows.shape[1] == 0:
        return rows.new_ones(rows.shape[0]), rows.new_full((rows.shape[0],), format.middle)
    bottom, top = (end.clone() for end in rows.aminmax(dim=1))
    scale, zero_point = range_to_scale(bottom, top, format)
    if format.method == "minmax":
        return scale, zero_point
    best = torch.zeros_like(scale)
    best_scale, best_zero = scale.clone(), zero_point.clone()
    plain = torch.ones_like(scale)
    low, high = format.limits
    flips = format.symmetric and high - low < 16 and low + high != 2 * format.middle
    sign = torch.where(top > -bottom, -1.0, 1.0).to(scale) if flips else plain
    for ratio, side in [(1.0, plain), *((ratio, sign) for ratio in CLIP_RATIOS)]:
        scale, zero_point = range_to_scale(bottom * ratio, top * ratio, format)
        product, square = _sums(rows, scale * side, low - zero_point, high - zero_point, importance)
        gain = torch.where(square > 0, product * product / square, 0.0)
        better = gain > best
        best = torch.where(better, gain, best)
        best_scale = torch.where(better, product / square, best_scale)
        best_zero = torch.where(better, zero_point, best_zero)
    return best_scale, best_zero


def range_to_scale(bottom: Tensor, top: Tensor, format: IntegerFormat) -> tuple[Tensor, Tensor]:
    """Return scale and integer zero point (both float) that map [bottom, top] onto the integers.

    The range is widened to include zero. A range of no width (all weights zero) has a small scale, because
    kernels that sum in integers and correct for zero points in floats leave an error of the scale's size.
    """
    bottom, top = bottom.clamp(max=0), top.clamp(min=0)
    low, high = format.limits
    steps = high - low
    # The ends are divided before they are subtracted, because their distance may overflow.
    scale = torch.maximum(-bottom, top) * (2 / steps) if format.symmetric else top / steps - bottom / steps
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, SMALL_SCALE, scale)
    if format.symmetric:
        return scale, torch.full_like(scale, format.middle)
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


def integer_type(format: IntegerFormat) -> torch.dtype:
    """Return the smallest torch type that holds the integers of `format`."""
    sizes = {8: (torch.uint8, torch.int8), 16: (torch.uint16, torch.int16), 32: (torch.uint32, torch.int32)}
    return sizes[max(8, format.stored_bits)][format.signed]


def require_finite(tensor: Tensor) -> None:
    """Raise ValueError with the first index at which `tensor` is NaN or infinite."""
    if tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
        index = (~torch.isfinite(tensor)).nonzero()[0].tolist()
        raise ValueError(f"value {float(tensor[tuple(index)])} at index {index}: cannot be quantized")
