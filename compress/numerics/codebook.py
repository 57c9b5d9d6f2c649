"""Codebooks by k-means: every weight, or every few consecutive weights, becomes the code of an entry.

Scalar codebooks are found on sorted values, where one step of Lloyd's algorithm (Lloyd, "Least squares
quantization in PCM", 1982) takes a binary search and differences of running sums. Codebooks of vectors
grow by splitting (Linde, Buzo and Gray, "An algorithm for vector quantizer design", 1980). The results are
deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.numerics.affine import require_finite
from compress.numerics.formats import CodebookFormat

STEPS = 40
"""Steps of Lloyd's algorithm on sorted values."""
STEPS_OF_VECTORS = 12
"""Steps for a codebook of vectors at its full size; earlier splits take half as many."""
SAMPLE = 1 << 15
"""About how many vectors a codebook is fitted to."""
CHUNK = 1 << 20
"""Distances that are held in memory at once."""
MANY_ZEROS = 0.1
"""Share of zeros from which one entry is exactly zero, so that what was pruned stays pruned."""


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """Weights as entries of codebooks, one codebook per row.

    Attributes:
        codes: uint8 [rows, vectors].
        codebook: float32 [rows, entries, dimensions].
    """

    codes: Tensor
    codebook: Tensor

    def restore(self) -> Tensor:
        """Return the weights, [rows, vectors * dimensions]."""
        entries = torch.take_along_dim(self.codebook, self.codes.long()[..., None], 1)
        return entries.flatten(1)


def palettize(rows: Tensor, format: CodebookFormat, importance: Tensor | None = None) -> Palette:
    """Find codebooks of least squared error.

    Args:
        rows: [rows, elements]; the elements of a row share a codebook.
        format: entries of a codebook, and dimensions of an entry, which divide the elements of a row. Entries
            beyond the number of distinct vectors of a row are unused.
        importance: factor on each squared error, not negative, broadcastable to `rows`.

    Raises:
        ValueError: the dimensions do not fit, or a value is not finite.
    """
    entries, dimensions = format.entries, format.dimensions
    if rows.shape[1] % dimensions:
        raise ValueError(f"{rows.shape[1]} weights do not divide into vectors of {dimensions}")
    require_finite(rows)
    rows = rows.contiguous()
    values = rows.double()
    weights = torch.ones_like(values) if importance is None else importance.double().expand(rows.shape)
    require_finite(weights)
    weights = (
        weights / weights.mean().clamp(min=1e-30) + 1e-6
    )  # weights of no importance are still approximated
    if dimensions == 1:
        book = _scalars(values, weights, entries)[..., None]
    else:
        found = [
            _vectors(x.reshape(-1, dimensions), w.reshape(-1, dimensions), entries)
            for x, w in zip(values.float(), weights.float(), strict=True)
        ]
        book = torch.stack(found)
    book = _with_zero(values, book).float()
    codes = [
        _nearest(x.reshape(-1, dimensions), w.reshape(-1, dimensions), b)
        for x, w, b in zip(rows.float(), weights.float(), book, strict=True)
    ]
    return Palette(torch.stack(codes).to(torch.uint8), book)


def _scalars(values: Tensor, weights: Tensor, entries: int) -> Tensor:
    """Return centroids [rows, entries], rising."""
    ordered, order = values.sort(dim=1)
    weights = weights.gather(1, order)
    del order
    starts = (*_even(ordered, entries), _companded(ordered, weights, entries))  # before the sums take memory
    sums = []
    for _ in range(3):
        sums.append(torch.nn.functional.pad(weights.cumsum(1), (1, 0)))
        weights *= ordered
    books, errors = [], []
    for start in starts:
        book, error = start, start
        for _ in range(STEPS):
            book, error = _lloyd(ordered, sums, book)
        books.append(book)
        errors.append(error)
    best = torch.stack(errors).argmin(0)
    return torch.stack(books)[best, torch.arange(len(best))]


def _even(ordered: Tensor, entries: int) -> list[Tensor]:
    """Return the levels of affine quantization, symmetric and asymmetric; Lloyd's steps only improve them."""
    low, high = ordered[:, :1].clamp(max=0), ordered[:, -1:].clamp(min=0)
    steps = torch.arange(entries, dtype=ordered.dtype)
    symmetric = torch.maximum(-low, high) * 2 / (entries - 1)
    scale = ((high - low) / (entries - 1)).clamp(min=1e-30)
    return [(steps - entries // 2) * symmetric, (steps - (-low / scale).round()) * scale]


def _companded(ordered: Tensor, weights: Tensor, entries: int) -> Tensor:
    """Return values at even steps of the integral of density^(1/3), the best spacing of many levels."""
    gaps = (ordered[:, 1:] - ordered[:, :-1]).clamp(min=0)
    mass = torch.nn.functional.pad((gaps.square() * weights[:, 1:]).pow(1 / 3).cumsum(1), (1, 0))
    middles = (torch.arange(entries, dtype=ordered.dtype) + 0.5) / entries
    places = torch.searchsorted(mass, (mass[:, -1:] * middles).contiguous())
    return ordered.gather(1, places.clamp(max=ordered.shape[1] - 1))


def _lloyd(ordered: Tensor, sums: list[Tensor], book: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of the cells around `book`, and the squared error of each row with them."""
    middles = ((book[:, 1:] + book[:, :-1]) / 2).contiguous()
    inner = torch.searchsorted(ordered, middles)
    ends = torch.nn.functional.pad(inner, (1, 1))
    ends[:, -1] = ordered.shape[1]
    count, first, second = (each.gather(1, ends).diff(dim=1) for each in sums)
    means = torch.where(count > 0, first / count.clamp(min=1e-30), book)
    error = (second - first * means).sum(1)
    return means.cummax(1).values, error


def _vectors(values: Tensor, weights: Tensor, entries: int) -> Tensor:
    """Return centroids [entries, dimensions] of vectors [vectors, dimensions], from a sample of them."""
    every = max(len(values) // SAMPLE, 1)
    values, weights = values[::every], weights[::every]
    book = ((values * weights).sum(0) / weights.sum(0))[None]
    while len(book) < entries:
        away = 0.1 * values.std(0, correction=0) + 1e-12
        book = torch.cat([book - away, book + away])[:entries]
        for _ in range(STEPS_OF_VECTORS if len(book) == entries else STEPS_OF_VECTORS // 2):
            codes = _nearest(values, weights, book)
            total = torch.zeros_like(book).index_add_(0, codes, weights)
            moved = torch.zeros_like(book).index_add_(0, codes, weights * values)
            errors = (weights * (values - book[codes]).square()).sum(1)
            book = torch.where(total > 0, moved / total.clamp(min=1e-30), book)
            # An unused entry moves to one of the vectors with the largest errors.
            free = (total[:, 0] == 0).nonzero()[: len(errors), 0]
            book[free] = values[errors.topk(len(free)).indices]
    return book


def _nearest(values: Tensor, weights: Tensor, book: Tensor) -> Tensor:
    """Return the entry [vectors] with the least weighted squared distance from each vector."""
    if book.shape[1] == 1:
        order = book[:, 0].argsort()
        middles = book[order, 0]
        return order[torch.bucketize(values[:, 0], (middles[1:] + middles[:-1]) / 2)]
    size = CHUNK // len(book)
    parts = [
        (w @ book.square().T - 2 * (w * x) @ book.T).argmin(1)
        for x, w in zip(torch.split(values, size), torch.split(weights, size), strict=True)
    ]
    return torch.cat(parts)


def _with_zero(values: Tensor, book: Tensor) -> Tensor:
    """Set the entry nearest to zero to zero, for rows [rows, elements] with many zeros."""
    many = (values == 0).double().mean(1) >= MANY_ZEROS
    nearest = book.square().sum(2).argmin(1)
    book[many, nearest[many]] = 0
    return book
