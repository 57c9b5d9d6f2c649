"""Index sets of tensor dimensions: an axis is a leaf, a product or a sum of axes.

Two dimensions whose elements meet (in an addition or a contraction) have *equal* axes. Reshape makes
an axis the row-major **product** of others (384 = 12 heads x 32). Concat and Split make it the
**sum** of others (1152 = 384 + 384 + 384). Equating axes of different structure refines both
until their leaves line up; where this is impossible, all their leaves are pinned. Each leaf that
is left can lose indices independently of the others: one leaf is one coupling group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[np.bool_]
"""What is kept of an axis, one truth value per index."""


class Axis:
    """The indices of a dimension; `kind`, `parts`, `pinned` and `normalized` are valid on the `root` only.

    Attributes:
        size: number of indices.
        kind: leaf, or product (row-major) or sum (one after the other) of `parts`.
        parts: axes it is made of.
        pinned: why no index may be removed; empty if indices may be removed.
        normalized: whether a statistic is taken over the axis, so that removing indices changes it.
    """

    __slots__ = ("_same", "kind", "normalized", "parts", "pinned", "size")

    def __init__(self, size: int, pinned: str = "") -> None:
        self.size = size
        self.kind: Literal["leaf", "product", "sum"] = "leaf"
        self.parts: tuple[Axis, ...] = ()
        self.pinned = pinned
        self.normalized = False
        self._same: Axis | None = None

    def __repr__(self) -> str:
        root = self.root
        if root.kind == "leaf":
            return f"{root.size}{'!' if root.pinned else ''}"
        return f"({(' x ' if root.kind == 'product' else ' + ').join(map(repr, root.parts))})"

    @property
    def root(self) -> Axis:
        """The axis that stands for all axes equal to this one."""
        axis = self
        while axis._same is not None:
            axis = axis._same
        if axis is not self:
            self._same = axis
        return axis

    def pieces(self) -> tuple[Axis, ...]:
        """Return the roots that it is made of, none of which is of its own kind: a sum of sums is one sum."""
        root = self.root
        found, stack = [], list(root.parts[::-1])
        while stack:
            part = stack.pop().root
            if part.kind == root.kind:
                stack.extend(part.parts[::-1])
            else:
                found.append(part)
        root.parts = tuple(found)
        return root.parts

    def leaves(self) -> Iterator[Axis]:
        """Yield the leaves, outermost first."""
        stack = [self]
        while stack:
            root = stack.pop().root
            if root.kind == "leaf":
                yield root
            stack.extend(root.parts[::-1])

    @property
    def is_pinned(self) -> bool:
        """Whether none of its indices may be removed."""
        return all(leaf.pinned for leaf in self.leaves())

    def pin(self, reason: str) -> None:
        """Forbid the removal of any index; the first reason is kept."""
        for leaf in self.leaves():
            leaf.pinned = leaf.pinned or reason

    def normalize(self) -> None:
        """Note that a statistic is taken over the axis."""
        for leaf in self.leaves():
            leaf.normalized = True

    def refine(self, kind: Literal["product", "sum"], parts: Sequence[Axis]) -> None:
        """Make this axis the product or sum of `parts`, which become pinned and normalized if it is."""
        self.kind, self.parts = kind, tuple(parts)
        if self.pinned:
            self.pin(self.pinned)
        if self.normalized:
            self.normalize()


def product(parts: Sequence[Axis]) -> Axis:
    """Return the row-major product of `parts`."""
    return _made_of("product", [part for part in parts if part.size != 1] or [Axis(1)])


def concatenation(parts: Sequence[Axis]) -> Axis:
    """Return the sum of `parts`."""
    return _made_of("sum", [part for part in parts if part.size] or [Axis(0)])


def _made_of(kind: Literal["product", "sum"], parts: list[Axis]) -> Axis:
    """Return an axis made of `parts`, or the part itself if there is only one."""
    if len(parts) == 1:
        return parts[0]
    sizes = [part.size for part in parts]
    axis = Axis(math.prod(sizes) if kind == "product" else sum(sizes))
    axis.refine(kind, parts)
    return axis


def equate(left: Axis, right: Axis) -> None:
    """State that two axes have the same indices in the same order."""
    left, right = left.root, right.root
    if left is right:
        return
    if left.size != right.size:
        _pin_all([left, right])
        return
    if right.kind != "leaf":
        left, right = right, left
    if left.is_pinned and right.is_pinned:
        pass  # nothing can be lost on either side, however the two are made up
    elif right.kind == "leaf":
        if right.pinned:
            left.pin(right.pinned)
        if right.normalized:
            left.normalize()
    elif left.kind == right.kind == "product":
        equate_products([left], [right])
    else:
        equate_sums([left], [right])
    right._same = left


def equate_products(left: Sequence[Axis], right: Sequence[Axis]) -> None:
    """State that the products of two lists of axes are equal, row-major, as Reshape makes them."""
    if not _line_up(left, right, _factors, _split_product):
        _pin_all([*left, *right])


def equate_sums(left: Sequence[Axis], right: Sequence[Axis]) -> None:
    """State that the sums of two lists of axes are equal, as Concat makes them."""
    if not _line_up(left, right, _terms, _split_sum):
        _pin_all([*left, *right])


def kept(axis: Axis, masks: Mapping[Axis, Mask]) -> Mask:
    """Return the mask of `axis` that follows from the masks of its leaves; a leaf without one keeps all."""
    root = axis.root
    if root.kind == "leaf":
        return masks.get(root, np.ones(root.size, bool))
    parts = [kept(part, masks) for part in root.pieces()]
    if root.kind == "sum":
        return np.concatenate(parts)
    result = np.ones(1, bool)
    for part in parts:
        result = np.logical_and.outer(result, part).reshape(-1)
    return result


def positions(axis: Axis, leaf: Axis) -> npt.NDArray[np.int64]:
    """Return for each index of `axis` the index of `leaf` that it belongs to, or -1."""
    root = axis.root
    if root is leaf:
        return np.arange(leaf.size)
    if root.kind == "leaf":
        return np.full(root.size, -1)
    parts = [positions(part, leaf) for part in root.pieces()]
    if root.kind == "sum":
        return np.concatenate(parts)
    result = np.full(1, -1)
    for part in parts:
        result = np.maximum.outer(result, part).reshape(-1)
    return result


def _factors(axis: Axis) -> list[Axis]:
    root = axis.root
    factors = root.pieces() if root.kind == "product" else (root,)
    return [factor for factor in factors if factor.size != 1]


def _terms(axis: Axis) -> list[Axis]:
    root = axis.root
    terms = root.pieces() if root.kind == "sum" else (root,)
    return [term for term in terms if term.size]


def _line_up(
    left: Sequence[Axis],
    right: Sequence[Axis],
    pieces: Callable[[Axis], list[Axis]],
    split: Callable[[Axis, int], tuple[Axis, Axis] | None],
) -> bool:
    """Equate two lists piece by piece, splitting the larger piece; False where sizes do not divide."""
    stacks = [list(left)[::-1], list(right)[::-1]]
    recurring = _outermost(left) & _outermost(right) if pieces is _terms else set()
    while True:
        for stack in stacks:
            while stack and pieces(stack[-1]) != [stack[-1].root]:
                stack.extend(reversed(pieces(stack.pop())))
        if not all(stacks):
            return not any(stacks)
        first, second = (stack.pop() for stack in stacks)
        if first.size == second.size:
            equate(first, second)
            continue
        if not first.size or not second.size:
            return False
        larger = 0 if first.size > second.size else 1
        if recurring & _outermost([(first, second)[larger]]):
            return False  # what is cut comes again on the other side: it would equal itself, shifted
        halves = split((first, second)[larger], min(first.size, second.size))
        if halves is None:
            return False
        stacks[larger].extend(reversed(halves))
        stacks[1 - larger].append((second, first)[larger])


def _outermost(axes: Iterable[Axis]) -> set[Axis]:
    """Return the axes that are cut where the terms of `axes` are."""
    return {(_factors(term) or [term])[0] for axis in axes for term in _terms(axis)}


def _split_product(axis: Axis, outer_size: int) -> tuple[Axis, Axis] | None:
    """Make a leaf or a sum the product of two axes, the outer of the given size."""
    root = axis.root
    inner_size, rest = divmod(root.size, outer_size)
    if rest:
        return None
    outer, inner = Axis(outer_size), Axis(inner_size)
    if root.kind == "sum":
        terms = _terms(root)
        if any(term.size % inner_size for term in terms):
            return None
        rows = [Axis(term.size // inner_size) for term in terms]
        for term, row in zip(terms, rows, strict=True):
            equate_products([term], [row, inner])
        outer = concatenation(rows)
    root.refine("product", (outer, inner))
    return outer, inner


def _split_sum(axis: Axis, first_size: int) -> tuple[Axis, Axis] | None:
    """Make a leaf the sum of two axes, the first of the given size, or cut a product's outer factor."""
    root = axis.root
    if root.kind == "leaf":
        halves = Axis(first_size), Axis(root.size - first_size)
        root.refine("sum", halves)
        return halves
    outer, *inner = _factors(root)
    rows, rest = divmod(first_size, root.size // outer.size)
    if rest:
        return None
    first, second = Axis(rows), Axis(outer.size - rows)
    equate_sums([outer], [first, second])
    return product([first, *inner]), product([second, *inner])


def _pin_all(axes: Iterable[Axis]) -> None:
    for axis in axes:
        axis.pin("its indices do not line up with another layer's")
