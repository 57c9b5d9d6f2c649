"""How operators relate the axes of their inputs and outputs: one function an operator, one file a family."""

from compress.prune.rules import (  # noqa: F401  (each family enters its rules)
    elementwise,
    image,
    layout,
    linear,
    normalization,
    reduction,
)
from compress.prune.rules.table import RULES, Rule, rule

__all__ = ["RULES", "Rule", "rule"]
