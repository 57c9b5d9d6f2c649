"""The operator table: which torch function computes which ONNX operator, and since which opset.

An operator's signature is its whole declaration. Positional parameters are the node's inputs,
keyword-only parameters its attributes under their ONNX names, and an annotation says what an input
is for: `Ints` and its kin arrive as Python numbers, `Weight` and its kin may hold trained values.
Attributes that several operators share stand in a `TypedDict`, taken as ``**name: Unpack[...]``.
Three keyword-only names are not attributes; whoever runs the graph supplies them:

- ``training``: whether the module is in training mode,
- ``outputs``: how many outputs the node asks for,
- ``device``: where to put a tensor that is made from nothing.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Any, TypeAlias

import onnx_ir as ir
import torch
from torch import Tensor

SUPPLIED = frozenset({"training", "outputs", "device"})
"""Keyword-only parameters that are not attributes."""
MICROSOFT = "com.microsoft"
"""Domain of the operators that only ONNX Runtime knows."""
TRAINING = "compress.training"
"""Domain of operators that exist while a graph is trained."""


class Role(Enum):
    """What an operator's input is for."""

    HOST = auto()
    """Shapes, axes and other numbers: read on the host as Python numbers."""
    EITHER = auto()
    """A number or an index, on the host or as a tensor."""
    WEIGHT = auto()
    """A trained value whatever its shape: kernels, norm scales and biases."""
    MATRIX = auto()
    """A trained matrix, unless only one of its axes is longer than one or it is a table of sines."""
    SHIFT = auto()
    """Added to features: a bias or a learnt position, unless it masks."""
    SCALE = auto()
    """Multiplies features: trained if it is one vector."""
    STATE = auto()
    """Statistics that training mode updates in place."""


Int: TypeAlias = Annotated[int, Role.HOST]
Ints: TypeAlias = Annotated[list[int], Role.HOST]
Number: TypeAlias = Annotated[float, Role.HOST]
Numbers: TypeAlias = Annotated[list[float], Role.HOST]
Either: TypeAlias = Annotated[Any, Role.EITHER]
Weight: TypeAlias = Annotated[Tensor, Role.WEIGHT]
Matrix: TypeAlias = Annotated[Tensor, Role.MATRIX]
Shift: TypeAlias = Annotated[Tensor, Role.SHIFT]
Scale: TypeAlias = Annotated[Tensor, Role.SCALE]
State: TypeAlias = Annotated[Tensor, Role.STATE]


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator from one opset on."""

    function: Callable[..., Any]
    """Takes the node's inputs and attributes, returns a tensor or a tuple of them."""
    since: int
    """First opset in which this is what the operator means."""
    roles: tuple[Role | None, ...]
    """What each input is for, by position; a variadic input repeats the last."""
    attributes: frozenset[str]
    """Attributes it knows; a node with another one is refused."""
    supplied: frozenset[str]
    """Which of `SUPPLIED` it wants."""
    variadic: bool
    """Whether the last role stands for any number of inputs."""

    def role(self, position: int) -> Role | None:
        """Return what the input at `position` is for."""
        if position < len(self.roles):
            return self.roles[position]
        return self.roles[-1] if self.variadic else None


_TABLE: dict[tuple[str, str], list[Operator]] = {}

Function = typing.TypeVar("Function", bound=Callable[..., Any])


def operator(
    name: str, *, since: int = 1, domain: str = "", attributes: Collection[str] = ()
) -> Callable[[Function], Function]:
    """Enter a function into the table.

    Args:
        name: the ONNX operator that it computes.
        since: first opset in which the operator means this.
        domain: "" for ONNX itself.
        attributes: positional parameters that are attributes of the node in these opsets, not inputs.
    """

    def register(function: Function) -> Function:
        entry = _declared(function, since, attributes)
        versions = _TABLE.setdefault((domain, name), [])
        versions.append(entry)
        versions.sort(key=lambda version: version.since)
        return function

    return register


def lookup(domain: str, name: str, opset: int) -> Operator | None:
    """Return what computes the operator `name` in an opset, or None if the table has nothing."""
    versions = [entry for entry in _TABLE.get((domain, name), ()) if entry.since <= opset]
    return versions[-1] if versions else None


def names() -> list[tuple[str, str]]:
    """Return (domain, operator) of everything in the table, in order."""
    return sorted(_TABLE)


def _declared(function: Callable[..., Any], since: int, moved: Collection[str]) -> Operator:
    hints = typing.get_type_hints(function, include_extras=True)
    roles: list[Role | None] = []
    keywords = set(moved)
    variadic = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.name in moved:
            keywords.add(parameter.name)
        elif parameter.kind is parameter.VAR_KEYWORD:
            (shared,) = typing.get_args(hints[parameter.name])
            keywords |= shared.__annotations__.keys()
        else:
            variadic |= parameter.kind is parameter.VAR_POSITIONAL
            roles.append(_role(hints[parameter.name]))
    attributes = frozenset(keywords - SUPPLIED)
    return Operator(function, since, tuple(roles), attributes, frozenset(keywords & SUPPLIED), variadic)


def _role(hint: Any) -> Role | None:
    """Find the role in an annotation such as ``Weight`` or ``Weight | None``."""
    for part in (hint, *typing.get_args(hint)):
        for extra in getattr(part, "__metadata__", ()):
            if isinstance(extra, Role):
                return extra
    return None


_TORCH_TYPES: dict[ir.DataType, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float32,  # gradients vanish and overflow in 16 bits
    ir.DataType.BFLOAT16: torch.float32,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
}


def torch_type(data_type: int) -> torch.dtype:
    """Return torch's name of the type that computes an ONNX element type: float32 for floats of 16 bits.

    Raises:
        NotImplementedError: torch cannot compute with it (strings, unsigned types above 8 bits,
            floats of 8 bits and below).
    """
    known = _TORCH_TYPES.get(ir.DataType(data_type))
    if known is None:
        raise NotImplementedError(f"torch cannot compute with elements of type {ir.DataType(data_type).name}")
    return known
