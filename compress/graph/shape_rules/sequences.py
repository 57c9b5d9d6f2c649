"""Shapes of the elements of sequences, and of what is taken from them.

A sequence is known by the shapes and types of its elements, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from compress.graph.shape_rules.call import Call
from compress.graph.tensor_info import TensorInfo, standard

Elements: TypeAlias = "list[TensorInfo]"
Found: TypeAlias = "Elements | TensorInfo | np.ndarray | None"
"""A sequence, a tensor, a tensor whose content is known; None if it does not follow."""
SequenceRule: TypeAlias = "Callable[[Call, Sequence[Elements | None]], Found]"
"""Takes a node and, for each input that is a sequence, its elements."""


def largest(infos: Sequence[TensorInfo]) -> TensorInfo | None:
    """Return the one with the most elements, None if there are none."""
    return max(infos, key=lambda info: info.elements, default=None)


def _constructed(call: Call, given: Sequence[Elements | None]) -> Found:
    return [call[place] for place in range(len(call.inputs))]


def _empty(call: Call, given: Sequence[Elements | None]) -> Found:
    return []


def _at(call: Call, given: Sequence[Elements | None]) -> Found:
    """SequenceAt: the element in a place; where the place is not known, the largest."""
    elements, place = given[0], call.number(1)
    if elements is None:
        return None
    return largest(elements) if place is None else elements[place]


def _inserted(call: Call, given: Sequence[Elements | None]) -> Found:
    elements, place = given[0], call.number(2)
    if elements is None:
        return None
    place = len(elements) if place is None else place
    return [*elements[:place], call[1], *elements[place:]]


def _erased(call: Call, given: Sequence[Elements | None]) -> Found:
    elements, place = given[0], call.number(1)
    if not elements:
        return None
    place = (len(elements) - 1 if place is None else place) % len(elements)
    return [*elements[:place], *elements[place + 1 :]]


def _length(call: Call, given: Sequence[Elements | None]) -> Found:
    elements = given[0]
    return TensorInfo((), ir.DataType.INT64) if elements is None else np.array(len(elements), np.int64)


def _split(call: Call, given: Sequence[Elements | None]) -> Found:
    """SplitToSequence: parts of one size, or of the sizes in a vector; without either, one index each."""
    whole, axis = call[0], call.int("axis")
    axis %= len(whole.shape)
    size, sizes = whole.shape[axis], call.values[1] if len(call.values) > 1 else None
    if call.get(1) is None:
        one = [] if not call.int("keepdims", 1) else [1]
        return [whole._replace(shape=(*whole.shape[:axis], *one, *whole.shape[axis + 1 :]))] * size
    if sizes is None:
        return None
    part = int(sizes.reshape(-1)[0]) if sizes.size else 0
    if sizes.ndim == 0 and part > 0:
        parts = [min(part, size - start) for start in range(0, size, part)]
    else:
        parts = sizes.reshape(-1).tolist()
    return [whole._replace(shape=(*whole.shape[:axis], each, *whole.shape[axis + 1 :])) for each in parts]


def _joined(call: Call, given: Sequence[Elements | None]) -> Found:
    """ConcatFromSequence: along an axis, or along a new one."""
    elements, axis = given[0], call.int("axis")
    if not elements:
        return None
    if not call.int("new_axis"):
        return standard("Concat", elements, [ir.AttrInt64("axis", axis)])
    shape = list(elements[0].shape)
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, len(elements))
    return elements[0]._replace(shape=tuple(shape))


def _same(call: Call, given: Sequence[Elements | None]) -> Found:
    return given[0] if given[0] is not None else call.get(0)


SEQUENCE_RULES: Mapping[str, SequenceRule] = {
    "ConcatFromSequence": _joined,
    "Optional": _same,
    "OptionalGetElement": _same,
    "SequenceAt": _at,
    "SequenceConstruct": _constructed,
    "SequenceEmpty": _empty,
    "SequenceErase": _erased,
    "SequenceInsert": _inserted,
    "SequenceLength": _length,
    "SplitToSequence": _split,
}
"""Rules of ONNX's operators on sequences; an Identity of a sequence is as an Optional of it."""
