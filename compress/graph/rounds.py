"""How often the body of a Loop or a Scan runs, and what it carries from round to round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from compress.graph.shape_rules.sequences import Elements
from compress.graph.tensor_info import TensorInfo

Known: TypeAlias = Literal["stated", "most", "measured", "assumed"]
"""How the number of rounds is known: the graph and the shapes state it; they state the most that there may
be; it was measured; or it is one, because only the data tell."""
LONGEST = 1_000_000
"""Elements of a sequence above which it is not followed."""
ENDLESS = np.iinfo(np.int32).max
"""Rounds from which on a limit is none: exporters write the largest integer where only a condition ends."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often a body runs."""

    count: int
    known: Known


ONCE = Rounds(1, "stated")


def name_of(node: ir.Node) -> str:
    """Return what a Loop is called: its own name, or that of its first output."""
    return node.name or (node.outputs[0].name if node.outputs else None) or node.op_type


def of_loop(
    node: ir.Node, body: ir.Graph, constants: Mapping[str, np.ndarray], measured: Mapping[str, int]
) -> Rounds:
    """Return how often the body of a Loop runs.

    Args:
        node: the Loop.
        body: its body.
        constants: contents of small values by name.
        measured: numbers of rounds by the name of the Loop.
    """
    limit, condition = (_content(node.inputs[place], constants) for place in (0, 1))
    if condition is not None and not condition.any():
        return Rounds(0, "stated")
    limited = limit is not None and limit.size == 1 and int(limit.reshape(-1)[0]) < ENDLESS
    if limit is not None and limited:
        most = max(int(limit.reshape(-1)[0]), 0)
        if _goes_on(node, body, condition, constants):
            return Rounds(most, "stated")
        return (
            Rounds(measured[name_of(node)], "measured") if name_of(node) in measured else Rounds(most, "most")
        )
    return Rounds(measured[name_of(node)], "measured") if name_of(node) in measured else Rounds(1, "assumed")


def _content(value: ir.Value | None, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    return None if value is None else constants.get(value.name or "")


def _goes_on(
    node: ir.Node, body: ir.Graph, condition: np.ndarray | None, constants: Mapping[str, np.ndarray]
) -> bool:
    """Tell whether nothing but its limit ends a Loop: its condition is true and its body leaves it so."""
    if node.inputs[1] is not None and condition is None:
        return False
    after: ir.Value | None = body.outputs[0]
    while (
        after is not None
        and (maker := after.producer()) is not None
        and maker.op_type in ("Identity", "Cast")
    ):
        after = maker.inputs[0]
    if after is None or after is body.inputs[1]:
        return after is not None
    content = _content(after, constants)
    return content is not None and bool(content.all())


def grown(
    before: TensorInfo | Elements, after: TensorInfo | Elements, rounds: int
) -> TensorInfo | Elements | None:
    """Return what is carried after some rounds, if each changes its shape, or appends, as the first does."""
    if isinstance(before, TensorInfo) and isinstance(after, TensorInfo):
        if before.dtype is not after.dtype or len(before.shape) != len(after.shape):
            return None
        sizes = [old + rounds * (new - old) for old, new in zip(before.shape, after.shape, strict=True)]
        return TensorInfo(tuple(sizes), before.dtype) if min(sizes, default=0) >= 0 else None
    if isinstance(before, list) and isinstance(after, list) and before == after[: len(before)]:
        added = after[len(before) :]
        return before + added * rounds if len(added) * rounds <= LONGEST else None
    return None
