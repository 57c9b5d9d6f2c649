"""Clusters of rows with similar statistics, each coded on its own.

Every channel is scaled by its largest weight, but channels differ in how many weights come near it. Similar
channels take fewer bits under a code of their own than under one for all channels. As in k-means, each row
goes to the cluster whose code is shortest for it, and each cluster's code is then computed anew from its rows
(P. A. Chou, T. Lookabaugh and R. M. Gray, Entropy-constrained vector quantization, IEEE Trans. ASSP 37(1),
1989, without the distortion term).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

COUNTS = (2, 4, 8)
"""Numbers of clusters that are tried."""
ROUNDS = 4
"""Iterations of k-means."""
LEARNT = 1024
"""Most rows that the codes of clusters are learnt from."""
MOST_AXES = 64
"""Most axes that a NumPy array can have."""
SHORTEST = 256
"""Bytes of the shortest row: fewer say little about its statistics. Also bounds the memory for counting."""
WORTH = 1e-3
"""Smallest share of bits that clusters must save, because they take half as long again to decode."""
TABLE_BITS = 20
"""Bits that one 8-bit value takes in the table of a cluster's code."""
COUNTED, MOVED = 1 << 20, 1 << 18
"""Bytes counted at a time, and bytes put in order at a time."""


class Shape(NamedTuple):
    """How the bytes of a chunk are laid out in its tensor."""

    first: int
    """Bytes of one slice along the first axis."""
    last: int
    """Bytes of one row along the last axis."""
    start: int = 0
    """Byte of the tensor at which the chunk begins."""

    @classmethod
    def of(cls, dims: Sequence[int], size: int) -> Shape | None:
        """Return the shape of a tensor of `size` bytes; None if its rows are not whole bytes."""
        if not 2 <= len(dims) <= MOST_AXES:
            return None
        count = prod(dims)
        if count <= 0 or size % dims[0] or size * dims[-1] % count:
            return None
        return cls(size // dims[0], size * dims[-1] // count)


@dataclass(frozen=True)
class Clusters:
    """A chunk as rows of one width; bytes before the first and after the last whole row are left over."""

    columns: bool
    """Whether columns are labelled; else rows are."""
    width: int
    head: int
    """Bytes before the first whole row."""
    labels: np.ndarray
    """Cluster of each row or column, uint8."""

    def ends(self, size: int) -> list[int]:
        """Return where each cluster ends when the clusters of a chunk of `size` bytes follow each other.

        The first cluster begins with the left-over bytes.
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
        """Fill `out`, uint8 [bytes], with the chunk; in `joined` its clusters follow each other."""
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
    """Return the clusters with the shortest code of a chunk, uint8 [bytes]; None if none save enough."""
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
    """Return each row's cluster: the one whose code is shortest for it. `labels` are those of a sample."""
    sums = _sums(sample, labels)
    sums += sums.sum(0) * 1e-3 + 1e-3  # no value is impossible
    labels = np.argmin(counts @ -np.log2(sums / sums.sum(1, keepdims=True)).T, axis=1)
    return np.asarray(np.unique(labels, return_inverse=True)[1])


def _sums(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how often each value is in each cluster, float32 [clusters, 256]."""
    members = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    return np.asarray(members.T @ counts)


def _entropies(counts: np.ndarray) -> np.ndarray:
    """Return the order-0 entropy of each row of counts, in bits."""
    terms = np.maximum(counts, 1)
    np.log2(terms, out=terms)  # in place: there may be as many counts as bytes in a chunk
    terms *= counts
    totals = counts.sum(1)
    return np.asarray(totals * np.log2(np.maximum(totals, 1)) - terms.sum(1))


def _bits(sums: np.ndarray) -> float:
    """Return the bits of all clusters, tables of their codes included."""
    return float(_entropies(sums.astype(np.float64)).sum() + TABLE_BITS * np.count_nonzero(sums))
