"""The table of rules: how each operator relates the axes of its inputs and outputs.

A rule states, through a `Trace`, which axes are equal, which a layer's weights produce and which it
sums over, and returns the axes of the node's outputs. It returns None for a variant it does not
know; then every axis the node touches is pinned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import onnx_ir as ir

from compress.prune.trace import Dims, Trace

Rule: TypeAlias = Callable[[ir.Node, Trace], list[Dims] | None]

RULES: dict[str, Rule] = {}
"""Operators of the default ONNX domain."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Enter a function in the table."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return enter


def pin_space(dims: Dims) -> None:
    """Pin the height, width and so on of an image or a kernel."""
    for axis in dims:
        axis.pin("it is a spatial dimension")


def axis_of(node: ir.Node, rank: int, default: int) -> int:
    """Return the attribute `axis` of a node, counted from the front."""
    axis = node.attributes.get_int("axis", default)
    return axis + rank if axis < 0 else axis
