"""Zeros in weights, counted in samples: a large weight is never read whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

WIDTH = 64
"""Consecutive elements of one sample."""
SAMPLES = (64, 256, 1024)
"""Samples after which counting may end, and the most that are taken; smaller weights are read whole."""
TOLERANCE = 0.005
"""Standard error of the fraction of zeros with which counting ends."""
GROUPS, RUN = 4096, 256
"""Groups of four in which at most two may be non-zero, and the most of them that are read at one place."""
_GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples modulo 1 spread evenly, however many are taken."""

Reader: TypeAlias = Callable[[int, int], np.ndarray]
"""From the first element and their number to which elements are not zero."""


def zeros(tensor: ir.TensorProtocol) -> tuple[float, bool]:
    """Return a weight's fraction of zeros, and whether two of every four along axis 0 or 1 are zero.

    Whole rows or columns of zeros make samples differ more: the standard error is then .015 at most.
    """
    if tensor.size == 0:
        return 0.0, False
    shape = tuple(tensor.shape.numpy())
    axes = [axis for axis in (0, 1) if len(shape) > 1 and shape[axis] % 4 == 0]
    with _opened(tensor) as read:
        return _fraction(read, tensor.size), any(_keeps_two(read, shape, axis) for axis in axes)


def _fraction(read: Reader, size: int) -> float:
    if size <= WIDTH * SAMPLES[-1]:
        return 1 - float(read(0, size).mean())
    found: list[float] = []
    for count in SAMPLES:
        for place in _places(count, -(-size // WIDTH))[len(found) :]:
            found.append(1 - float(read(place * WIDTH, WIDTH).mean()))
        if np.std(found) <= TOLERANCE * math.sqrt(count):
            break
    return float(np.mean(found))


def _places(count: int, among: int) -> list[int]:
    """Return numbers below `among`, spread evenly; more of them begin with the same."""
    if among <= count:
        return list(range(among))
    return [int(number * _GOLDEN % 1 * among) for number in range(count)]


def _keeps_two(read: Reader, shape: tuple[int, ...], axis: int) -> bool:
    """Tell whether no group of four along an axis has more than two that are not zero."""
    return all(group.sum(0).max() <= 2 for group in _groups(read, shape, axis))


def _groups(read: Reader, shape: tuple[int, ...], axis: int) -> Iterator[np.ndarray]:
    """Yield groups of four elements along an axis, many at a time: [4, groups]."""
    size, inner = math.prod(shape), math.prod(shape[axis + 1 :])
    if size <= WIDTH * SAMPLES[-1]:
        yield read(0, size).reshape(-1, 4, inner).swapaxes(0, 1).reshape(4, -1)
        return
    run = min(inner, RUN) if inner > 1 else RUN
    for place in _places(GROUPS // run, size // 4):
        if inner == 1:
            yield read(4 * place, 4 * min(run, size // 4 - place)).reshape(-1, 4).T
        else:
            four, column = divmod(place, inner)
            width = min(run, inner - column)
            yield np.stack([read((4 * four + row) * inner + column, width) for row in range(4)])


@contextmanager
def _opened(tensor: ir.TensorProtocol) -> Iterator[Reader]:
    """Open a tensor; one in a file is read where it is asked for, and nowhere else."""
    if not isinstance(tensor, ir.ExternalTensor):
        flat = tensor.numpy().reshape(-1)
        yield lambda first, count: flat[first : first + count] != 0
        return
    size, bits, offset = tensor.size, tensor.dtype.bitwidth, tensor.offset or 0
    kind = tensor.dtype.numpy()
    with Path(tensor.path).open("rb", buffering=0) as file:

        def read(first: int, count: int) -> np.ndarray:
            count = min(count, size - first)
            start, end = first * bits // 8, -(-(first + count) * bits // 8)
            file.seek(offset + start)
            data = np.frombuffer(file.read(end - start), np.uint8)
            if bits >= 8:
                return np.asarray(data.view(kind) != 0)
            ones = np.asarray(np.unpackbits(data, bitorder="little").reshape(-1, bits).any(1))
            return ones[first - 8 * start // bits :][:count]

        yield read
