"""What a rule is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from compress.graph.tensor_info import TensorInfo

Outputs: TypeAlias = Sequence[TensorInfo | None]


@dataclass(frozen=True, slots=True)
class Call:
    """A node with what is known of its inputs.

    Attributes:
        node: the node.
        version: of its operator set.
        inputs: shape and type of each input; None for one that is left out.
        values: the content of each input where it is constant and small.
    """

    node: ir.Node
    version: int
    inputs: Sequence[TensorInfo | None]
    values: Sequence[np.ndarray | None]

    def __getitem__(self, index: int) -> TensorInfo:
        """Return a required input."""
        found = self.get(index)
        if found is None:
            raise ValueError(f"input {index} is missing")
        return found

    def get(self, index: int) -> TensorInfo | None:
        """Return an input, None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def number(self, index: int) -> int | None:
        """Return the single number in an input, None if it is not known."""
        array = self.values[index] if index < len(self.values) else None
        return int(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def int(self, name: str, default: int = 0) -> int:
        """Return an attribute that is a number."""
        return self.node.attributes.get_int(name, default)

    def attributes(self, names: Iterable[str]) -> list[ir.Attr]:
        """Return those of some attributes that the node has."""
        return [self.node.attributes[name] for name in names if name in self.node.attributes]


Rule: TypeAlias = Callable[[Call], Outputs]


def apply(rule: Rule, call: Call) -> Outputs:
    """Return what a rule says of the outputs that a node has.

    Raises:
        ValueError: the inputs do not fit the operator.
    """
    try:
        return rule(call)[: len(call.node.outputs)]
    except (IndexError, KeyError, ZeroDivisionError) as error:
        raise ValueError(f"its inputs do not fit the operator: {error}") from error
