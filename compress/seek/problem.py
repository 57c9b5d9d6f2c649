"""Decisions with their options, what each adds to the loss, and what layers cost by all that touch them.

The loss is a sum over decisions. A cost is a sum over cells: each is one layer, and its cost depends on the
few decisions that touch it, jointly.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Kind: TypeAlias = Literal["weights", "codes", "arithmetic", "channels"]
"""What is decided. weights: bits of a layer's weights. codes: whether the values between some layers are
stored as 8-bit integers. arithmetic: whether a layer multiplies integers. channels: the share that a group
keeps."""
Assignment: TypeAlias = tuple[int, ...]
"""The number of the chosen option of every decision."""
NEGLIGIBLE = 1e-6
"""Relative difference of costs that is none."""
Table: TypeAlias = npt.NDArray[np.float64]
"""One number for every combination of options; one axis for every decision."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing to decide.

    Attributes:
        kind: what it is about.
        name: of the layer or the group.
        options: what can be chosen; the first leaves things as they are, if that is possible.
    """

    kind: Kind
    name: str
    options: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """The cost of one layer.

    Attributes:
        name: of the layer.
        decisions: numbers of the decisions that touch it.
        tables: by quantity, its cost for every combination of their options.
    """

    name: str
    decisions: tuple[int, ...]
    tables: Mapping[str, Table]

    def of(self, quantity: str, chosen: Assignment) -> float:
        """Return the cost for an assignment."""
        return float(self.tables[quantity][tuple(chosen[number] for number in self.decisions)])


@dataclass(frozen=True, slots=True)
class Link:
    """A linear condition: the weights of the chosen options add up to at most `most`.

    Attributes:
        terms: (number of the decision, number of the option, weight).
        most: the bound.
    """

    terms: tuple[tuple[int, int, float], ...]
    most: float

    def holds(self, chosen: Assignment) -> bool:
        """Tell whether an assignment keeps it."""
        return sum(weight for number, option, weight in self.terms if chosen[number] == option) <= self.most


@dataclass(frozen=True, slots=True)
class Problem:
    """What can be decided, and what follows.

    Attributes:
        decisions: the decisions.
        loss: noise over signal at the outputs that every option of every decision adds.
        cells: the cost of every layer.
        links: conditions between decisions.
    """

    decisions: Sequence[Decision]
    loss: Sequence[npt.NDArray[np.float64]]
    cells: Sequence[Cell]
    links: Sequence[Link] = ()

    def added(self, chosen: Assignment) -> float:
        """Return the predicted loss."""
        return sum(float(losses[option]) for losses, option in zip(self.loss, chosen, strict=True))

    def cost(self, quantity: str, chosen: Assignment) -> float:
        """Return the predicted cost."""
        return sum(cell.of(quantity, chosen) for cell in self.cells)

    def holds(self, chosen: Assignment) -> bool:
        """Tell whether all conditions between decisions hold."""
        return all(link.holds(chosen) for link in self.links)


def gains(cells: Sequence[Cell], quantities: Collection[str], number: int, option: int) -> bool:
    """Tell whether an option of a decision ever costs less of something than all options before it."""
    for cell in cells:
        if number in cell.decisions:
            axis = cell.decisions.index(number)
            for quantity in quantities:
                table = cell.tables[quantity]
                least = table.take(range(option), axis).min(axis)
                if (table.take(option, axis) < least * (1 - NEGLIGIBLE)).any():
                    return True
    return False
