"""What every operator is, told once: `of(node)` returns the one record that all rooms ask.

A new operator is one entry, or one more name in an entry of several, in the file of its kind (`elementwise`,
`movement`, `products`, `statistics`). tests/contract/test_facts.py then asks each room about it, and checks
what the entry says on numbers.
Two things that look like facts stand elsewhere, since one room alone asks for them: how an argument reaches
the function that computes an operator in torch (its signature in `compress.trainable.operators`), and how
many loops a contraction has (`compress.estimator.operators`, by `Operator.cost`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from compress.graph.facts.elementwise import ELEMENTWISE
from compress.graph.facts.movement import MOVEMENT
from compress.graph.facts.products import PRODUCTS
from compress.graph.facts.record import (
    CONVOLUTIONS,
    LAYOUTS,
    MICROSOFT,
    UNKNOWN,
    Cost,
    Operator,
    Weight,
)
from compress.graph.facts.statistics import STATISTICS

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "CONVOLUTIONS",
    "LAYOUTS",
    "MICROSOFT",
    "OPERATORS",
    "UNKNOWN",
    "Cost",
    "Operator",
    "Weight",
    "find",
    "named",
    "names",
    "of",
    "weights",
]

OPERATORS: Mapping[tuple[str, str], Operator] = {
    (operator.domain, operator.name): operator
    for operator in (*ELEMENTWISE, *MOVEMENT, *PRODUCTS, *STATISTICS)
}
"""Every entry by (domain, name)."""
_BY_NAME: Mapping[str, Operator] = {
    operator.name: operator for operator in sorted(OPERATORS.values(), key=lambda each: each.domain)[::-1]
}


def of(node: ir.Node) -> Operator:
    """Return what a node's operator is; `UNKNOWN` if the table does not have it."""
    return find(node.op_type, node.domain)


def find(name: str, domain: str = "") -> Operator:
    """Return what the operator `name` of a domain is; `UNKNOWN` if the table does not have it.

    ONNX Runtime has operators of the same name in domains of its own: older forms, such as a Pad in
    com.microsoft, and forms for its layouts of images, such as a QLinearConv with the channels last.
    """
    domains = (domain, "", MICROSOFT) if domain in (MICROSOFT, *LAYOUTS) else (domain,)
    return next((OPERATORS[each, name] for each in domains if (each, name) in OPERATORS), UNKNOWN)


def named(name: str) -> Operator:
    """Return what an operator is whose domain is not known: ONNX's own if there is one of that name."""
    return _BY_NAME.get(name, UNKNOWN)


def names(accepts: Callable[[Operator], bool], domain: str = "") -> tuple[str, ...]:
    """Return the names of a domain's operators that `accepts` accepts, in order."""
    return tuple(sorted(each.name for each in OPERATORS.values() if each.domain == domain and accepts(each)))


def weights(node: ir.Node) -> tuple[Weight, ...]:
    """Return where a node may have weights, with the axes as the node's attributes make them."""
    operator = of(node)
    if operator.turned_by and bool(node.attributes.get_int(operator.turned_by, 0)):
        return tuple(Weight(each.index, each.inputs or 0, each.outputs) for each in operator.weights)
    if operator.name == "Gather" and bool(node.attributes.get_int("axis", 0)):
        return ()  # not rows of a table
    return operator.weights
