"""How operators relate the axes of their inputs and outputs: one function an operator, one file a family."""

from compress.prune.rules import (  # noqa: F401  (each family enters its rules in the table)
    elementwise,
    image,
    layout,
    linear,
    normalization,
    reduction,
)
from compress.prune.trace import RULES

__all__ = ["RULES"]
