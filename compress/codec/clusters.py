"""Rows of a matrix of codes that share statistics, so that each cluster of them is coded on its own.

Channels are scaled by their largest weight, and differ in how often they come near it: codes of channels
that are alike take less together than those of all. As in k-means, each row goes to the cluster whose code
is cheapest for it, and each cluster's code is made anew from its rows (P. A. Chou, T. Lookabaugh and
R. M. Gray, Entropy-constrained vector quantization, IEEE Trans. ASSP 37(1), 1989, without a distortion).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

COUNTS = (2, 4, 8)
"""Clusters that are tried."""
ROUNDS = 4
LEARNT = 1024
"""Rows that the codes of clusters are learnt from, at most."""
MOST_AXES = 64
"""Of NumPy's arrays."""
SHORTEST = 256
"""Bytes of a row: fewer say little about their statistics. Also bounds the memory that counting takes."""
WORTH = 1e-3
"""The least share that is saved: clusters take half as long again to decode."""
TABLE_BITS = 20
"""What a value of 8 bits costs in the table of a cluster's code."""
COUNTED, MOVED = 1 << 20, 1 << 18
"""Bytes that are counted, or put in order, at a time."""


class Shape(NamedTuple):
    """How the bytes of a chunk are laid out in the tensor that it is of."""

    first: int
    """Bytes of one index of the first axis."""
    last: int
    """Bytes of the last axis."""
    start: int = 0
    """Where in the tensor the chunk begins."""

    @classmethod
    def of(cls, dims: Sequence[int], size: int) -> Shape | None:
        """Return the shape of `size` bytes of a tensor; None if it has no rows of whole bytes."""
        if not 2 <= len(dims) <= MOST_AXES:
            return None
        count = prod(dims)
        if count <= 0 or size % dims[0] or size * dims[-1] % count:
            return None
        return cls(size // dims[0], size * dims[-1] // count)


@dataclass(frozen=True)
class Clusters:
    """A chunk as rows of one width, between what is left of the rows that it begins and ends within."""

    columns: bool
    """What is labelled: columns, or rows."""
    width: int
    head: int
    """Bytes before the first whole row."""
    labels: np.ndarray
    """Cluster of each row or column, uint8."""

    def ends(self, size: int) -> list[int]:
        """Return where each cluster of a chunk of `size` bytes ends, when they follow each other.

        The first begins with what is in no whole row.
        """
        body = (size - self.head) // self.width * self.width
        counts = np.bincount(self.labels) * (body // self.labels.size)
        return [int(end) for end in np.cumsum(counts) + (size - body)]

    def split(self, data: np.ndarray) -> list[np.ndarray]:
        """Return the bytes of each cluster of a chunk, uint8 [bytes]."""
        body = _body(data, self.width, self.head)
        chosen = [self.labels == label for label in range(int(self.labels.max()) + 1)]
        parts = [(body[:, each] if self.columns else body[each]).ravel() for each in chosen]
        rest = data[: self.head], data[self.head + body.size :]
        return [np.concatenate([*rest, parts[0]]), *parts[1:]]

    def join(self, joined: np.ndarray, out: np.ndarray) -> None:
        """Fill `out`, uint8 [bytes], with the chunk whose clusters follow each other in `joined`."""
        body = _body(out, self.width, self.head)
        ends = self.ends(out.size)
        rest = out.size - body.size
        out[: self.head] = joined[: self.head]
        out[self.head + body.size :] = joined[self.head : rest]
        parts = [joined[start:end] for start, end in zip([rest, *ends], ends, strict=False)]
        if not self.columns:
            for label, part in enumerate(parts):
                body[self.labels == label] = part.reshape(-1, self.width)
            return
        matrices = [part.reshape(len(body), -1) for part in parts]
        places = np.argsort(np.argsort(self.labels, kind="stable"), kind="stable")
        height = -(-MOVED // self.width)
        for start in range(0, len(body), height):
            rows = slice(start, start + height)
            tile = np.concatenate([matrix[rows] for matrix in matrices], axis=1)
            np.take(tile, places, axis=1, out=body[rows], mode="clip")


def clustered(data: np.ndarray, shape: Shape) -> Clusters | None:
    """Return the clusters that promise the shortest code of a chunk, uint8 [bytes]; None if none do."""
    best, most = None, 0.0
    for columns, width in ((False, shape.first), (True, shape.last)):
        head = -shape.start % width
        rows = max(data.size - head, 0) // width
        number, length = (width, rows) if columns else (rows, width)
        if length < SHORTEST or number < COUNTS[0]:
            continue
        counts = _counts(_body(data, width, head), columns)
        plain = _bits(counts.sum(0, keepdims=True))
        for labels in _assignments(counts):
            sums = _sums(counts, labels)
            saved = plain - _bits(sums) - number * np.log2(len(sums))
            if saved <= max(most, WORTH * plain):
                break  # more clusters seldom save what fewer did not
            best, most = Clusters(columns, width, head, labels), saved
    return best


def _body(data: np.ndarray, width: int, head: int) -> np.ndarray:
    rows = (data.size - head) // width
    return data[head : head + rows * width].reshape(rows, width)


def _counts(matrix: np.ndarray, columns: bool) -> np.ndarray:
    """Return how often each value is in each row or column, float32 [rows, 256]."""
    lines = matrix.T if columns else matrix
    counts = np.empty((len(lines), 256), np.float32)
    height = max(COUNTED // lines.shape[1], 1)
    for start in range(0, len(lines), height):
        block = lines[start : start + height]
        bins = block + np.arange(len(block))[:, None] * 256
        found = np.bincount(bins.ravel("K"), minlength=len(block) * 256)  # in any order: no copy
        counts[start : start + height] = found.reshape(-1, 256)
    return counts


def _assignments(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the cluster of each row, uint8, for each number of clusters; all clusters have rows."""
    sample = counts[:: -(-len(counts) // LEARNT)]
    order = np.argsort(_entropies(sample))
    for number in COUNTS:
        labels = np.empty(len(sample), np.int64)
        labels[order] = np.arange(len(sample)) * min(number, len(sample)) // len(sample)
        for _ in range(ROUNDS):
            labels = _cheapest(sample, sample, labels)
        yield _cheapest(counts, sample, labels).astype(np.uint8)


def _cheapest(counts: np.ndarray, sample: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each row the cluster, of those that `labels` makes of a sample, whose code is shortest."""
    sums = _sums(sample, labels)
    sums += sums.sum(0) * 1e-3 + 1e-3  # no value is impossible
    labels = np.argmin(counts @ -np.log2(sums / sums.sum(1, keepdims=True)).T, axis=1)
    return np.asarray(np.unique(labels, return_inverse=True)[1])


def _sums(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how often each value is in each cluster, float32 [clusters, 256]."""
    members = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    return np.asarray(members.T @ counts)


def _entropies(counts: np.ndarray) -> np.ndarray:
    """Return the bits that the codes of each row take of order 0."""
    terms = np.maximum(counts, 1)
    np.log2(terms, out=terms)  # in place: there may be as many counts as bytes in a chunk
    terms *= counts
    totals = counts.sum(1)
    return np.asarray(totals * np.log2(np.maximum(totals, 1)) - terms.sum(1))


def _bits(sums: np.ndarray) -> float:
    """Return the bits that clusters take, with the tables of their codes."""
    return float(_entropies(sums.astype(np.float64)).sum() + TABLE_BITS * np.count_nonzero(sums))
