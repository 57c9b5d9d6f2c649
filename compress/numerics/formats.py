"""Number formats of weights, each as one frozen value.

Functions of `compress.numerics` and `compress.quantize` take a format instead of its parts. The module does
not import torch, so that settings and recipes may name a format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from compress.errors import did_you_mean
from compress.numerics.granularity import Granularity, PerAxis, PerGroup, PerTensor

Method = Literal["minmax", "mse"]
"""How the range of an integer format is chosen: the extremes of the data, or the least squared error."""


def stored_bits(bits: int) -> int:
    """Return the bits that a file spends on a number of `bits`: the next of 2, 4, 8, 16 and 32."""
    return next(size for size in (2, 4, 8, 16, 32) if bits <= size)


@dataclass(frozen=True, slots=True)
class IntegerFormat:
    """Integers, each multiplied by a scale: ``weight = (value - zero point) * scale``.

    It prints as a recipe would write it, and `parse` reads that again::

        >>> str(IntegerFormat(4, PerGroup(32, axis=0), symmetric=False))
        'int4, groups of 32 along axis 0, asymmetric'
        >>> IntegerFormat.parse("uint8, per axis 1, mse").limits
        (0, 255)

    Attributes:
        bits: 2 to 32. Seven bits keep U8S8 kernels without VNNI from saturating, because two products of
            255 and -64 fit into 16 bits; they are stored in eight.
        granularity: which elements share a scale.
        symmetric: the zero point is the middle of the range; otherwise the range follows the data.
        signed: values are two's complement; otherwise they start from zero.
        narrow: the lowest integer is left out, so that the range is symmetric (-127 to 127).
        method: how ranges are chosen.

    Raises:
        ValueError: `bits` is not 2 to 32.
    """

    bits: int
    granularity: Granularity = field(default_factory=PerTensor)
    symmetric: bool = True
    signed: bool = True
    narrow: bool = False
    method: Method = "minmax"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 32:
            raise ValueError(f"{self.bits} bits: an integer format has 2 to 32")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` prints; parts may be left out, and may come in any order after the first.

        Raises:
            ValueError: a part is not known; the message says which, and what may stand there.
        """
        first, *parts = (part.strip() for part in text.split(","))
        kind = re.fullmatch(r"(u?)int(\d+)", first)
        if not kind:
            raise ValueError(f"format {text!r}: it starts with 'int' or 'uint' and the bits, as in 'int4'")
        found = cls(int(kind[2]), signed=not kind[1])
        for part in parts:
            if axis := re.fullmatch(r"per axis (-?\d+)", part):
                found = found.over(PerAxis(int(axis[1])))
            elif group := re.fullmatch(r"groups of (\d+) along axis (-?\d+)", part):
                found = found.over(PerGroup(int(group[1]), int(group[2])))
            elif part in _FLAGS:
                found = replace(found, **_FLAGS[part])
            elif part != "per tensor":
                known = ("per tensor", "per axis N", "groups of N along axis N", *_FLAGS)
                raise ValueError(f"format {text!r}: {part!r} is unknown{did_you_mean(part, known)}")
        return found

    def __str__(self) -> str:
        flags = [text for text, fields in _FLAGS.items() if replace(self, **fields) == self]
        return ", ".join([f"{'' if self.signed else 'u'}int{self.bits}", str(self.granularity), *flags])

    def over(self, granularity: Granularity) -> Self:
        """Return the same format with scales shared as `granularity` says."""
        return replace(self, granularity=granularity)

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest integer."""
        low = -(1 << (self.bits - 1)) if self.signed else 0
        return low + self.narrow, low + (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point of a symmetric format."""
        low, high = self.limits
        return (low + high + 1) // 2

    @property
    def stored_bits(self) -> int:
        """Bits that a value takes in a file: the next of 2, 4, 8, 16 and 32."""
        return stored_bits(self.bits)


_FLAGS: dict[str, dict[str, Any]] = {
    "asymmetric": {"symmetric": False},
    "narrow": {"narrow": True},
    "mse": {"method": "mse"},
}
"""Words for the parts of a format that differ from the defaults."""


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A floating-point format.

    Attributes:
        name: as recipes call it.
        bits: bits of a number.
        largest: the largest finite number.
        scaled: a weight has one scale that maps its largest magnitude onto `largest`, because the range of
            the format is too small to hold weights as they are.
    """

    name: str
    bits: int
    largest: float
    scaled: bool = False

    def __str__(self) -> str:
        return self.name


FLOATS = {
    each.name: each
    for each in (
        FloatFormat("float16", 16, 65504.0),
        FloatFormat("bfloat16", 16, 3.3895e38),
        FloatFormat("float8e4m3", 8, 448.0, scaled=True),
    )
}
"""Floating-point formats by name. float8e4m3 is E4M3 without infinities, from the OCP 8-bit Floating Point
Specification (OFP8), revision 1.0, 2023."""


@dataclass(frozen=True, slots=True)
class CodebookFormat:
    """Codebooks: every weight, or every few consecutive weights, is stored as the code of an entry.

    Attributes:
        entries: entries of a codebook, 2 to 256.
        dimensions: consecutive weights that one entry holds.
        channels: output channels that share a codebook; None where the whole tensor does.

    Raises:
        ValueError: `entries` or `dimensions` is out of range.
    """

    entries: int
    dimensions: int = 1
    channels: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.entries <= 256:
            raise ValueError(f"{self.entries} entries: a codebook has 2 to 256")
        if self.dimensions < 1:
            raise ValueError(f"{self.dimensions} dimensions: an entry holds at least one weight")

    @property
    def code_bits(self) -> int:
        """Bits that a code takes in a file: 2, 4 or 8."""
        return next(size for size in (2, 4, 8) if self.entries <= 1 << size)

    def __str__(self) -> str:
        vectors = f" of {self.dimensions} weights" if self.dimensions > 1 else ""
        shared = "per tensor" if self.channels is None else f"per {self.channels} channels"
        return f"{self.entries} entries{vectors} {shared}"
