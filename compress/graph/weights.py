"""The census of weights: every number that a model has learnt, where it is stored, and who computes with it.

A weight is a constant of more than one element: of floats of any width, or of integers of at most 8 bits
that floats are decoded from. Single numbers, shapes, indices and masks are none, nor are the settings of an
operator: scales, zero points and codebooks belong to the integers that they decode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from compress.data import DEFAULT
from compress.graph import edit, facts

SETTINGS = ("early", "layout", "pool", "reduction", "view")
"""Costs of operators whose inputs behind the data say how they work, and are not learnt."""
DIRECTIONS = 2
"""Most directions of a recurrent operator."""
CODE_BITS = 8
"""Most bits of an integer that stands for a float."""


@dataclass(slots=True, eq=False)
class StoredWeight:
    """A weight of a model.

    Attributes:
        name: of the initializer, or of the output of the Constant.
        tensor: its content.
        names: by which a user or a record may call it: its own, those of the nodes that read it, and those of
            nodes and values between, which arrange or decode it before anything is computed.
        readers: nodes that compute with it.
        is_input: whether it is the default of an input, which whoever runs the graph may replace.
        is_output: whether the graph returns it.
    """

    name: str
    tensor: ir.TensorProtocol
    names: set[str] = field(default_factory=set)
    readers: list[ir.Node] = field(default_factory=list)
    is_input: bool = False
    is_output: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return self.tensor.nbytes

    @property
    def is_codes(self) -> bool:
        """Whether it is stored as integers of at most 8 bits."""
        return _is_codes(self.tensor)

    @property
    def is_vector(self) -> bool:
        """Whether it is a vector, as in a bias or a normalization, or one for each recurrent direction."""
        sizes = self.tensor.shape.numpy()
        recurrent = all(facts.of(node).is_recurrent for node in self.readers)
        of_directions = recurrent and len(sizes) == 2 and sizes[0] <= DIRECTIONS
        return of_directions or sum(size != 1 for size in sizes) < 2

    @property
    def is_finite(self) -> bool:
        """Whether no number is infinite or NaN."""
        return self.is_codes or bool(np.isfinite(self.tensor.numpy()).all())

    def read_in(self, graph: ir.Graph) -> bool:
        """Tell whether a node of `graph` itself, not of a body in it, computes with the weight."""
        return any(node.graph is graph for node in self.readers)

    def numbers(self) -> tuple[ir.DataType, int, int, int]:
        """Return what weights of the same numbers have in common, in whatever order the numbers are."""
        content = np.frombuffer(self.tensor.tobytes(), f"u{max(self.tensor.dtype.bitwidth // 8, 1)}")
        bits = content.astype(np.uint64)
        return self.tensor.dtype, self.tensor.size, int(bits.sum()), int((bits * bits).sum())


def census(model: ir.Model) -> list[StoredWeight]:
    """Return every weight of a model that is read or returned, in bodies of If, Loop and Scan too."""
    constants = {value: StoredWeight(value.name or "", tensor) for value, tensor in _constants(model)}
    behind: dict[ir.Value, tuple[StoredWeight, ...]] = {}
    for value, weight in constants.items():
        weight.names.add(weight.name)
        weight.is_input, weight.is_output = value.is_graph_input(), value.is_graph_output()
        behind[value] = (weight,) if _may_be_weight(weight.tensor) else ()
    for node in model.graph.all_nodes():
        if node.op_type != "Constant":
            _follow(node, behind)
    settings = {part for group in behind.values() for part in _decoders(group)}
    return [
        weight
        for weight in constants.values()
        if (weight.readers or weight.is_output) and _may_be_weight(weight.tensor) and weight not in settings
    ]


def _follow(node: ir.Node, behind: dict[ir.Value, tuple[StoredWeight, ...]]) -> None:
    """Note which weights a node computes with, or what is behind its outputs if it reads constants alone."""
    given = [value for value in node.inputs if value is not None]
    found = dict.fromkeys(weight for value in given for weight in behind.get(value, ()))
    if given and all(value in behind for value in given) and not edit.bodies(node):
        for weight in found:
            weight.names.update(filter(None, (node.name, *(value.name for value in node.outputs))))
            weight.is_output |= any(value.is_graph_output() for value in node.outputs)
        behind.update(dict.fromkeys(node.outputs, tuple(found)))
        return
    for place, value in enumerate(node.inputs):
        for weight in behind.get(value, ()) if value is not None and not _is_setting(node, place) else ():
            weight.names.add(node.name or "")
            if node not in weight.readers:
                weight.readers.append(node)


def _constants(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield every constant with its content: initializers, what Constant nodes hold, defaults of inputs."""
    yield from ((value, value.meta[DEFAULT]) for value in model.graph.inputs if DEFAULT in value.meta)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value, value.const_value
    for node in model.graph.all_nodes():
        held = node.attributes.get("value") if node.op_type == "Constant" else None
        if held is not None and held.type == ir.AttributeType.TENSOR:
            yield node.outputs[0], held.as_tensor()


def _may_be_weight(tensor: ir.TensorProtocol) -> bool:
    return tensor.size > 1 and (tensor.dtype.is_floating_point() or _is_codes(tensor))


def _is_codes(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.is_integer() and tensor.dtype.bitwidth <= CODE_BITS


def _decoders(group: Sequence[StoredWeight]) -> Iterator[StoredWeight]:
    """Yield the scales, zero points and codebooks of constants from which one weight is made."""
    codes = [weight for weight in group if weight.is_codes]
    largest = max(codes, key=lambda weight: weight.tensor.size, default=None)
    if largest is not None:
        yield from (
            weight
            for weight in group
            if weight is not largest and (weight.is_codes or weight.tensor.size < largest.tensor.size)
        )


def _is_setting(node: ir.Node, place: int) -> bool:
    """Tell whether an input of a node says how it works: scales of its integers, sizes, indices."""
    operator = facts.of(node)
    if place in (operator.bias, operator.scale) or any(each.index == place for each in operator.weights):
        return False
    if operator.operands is None or place < operator.operands or operator.is_recurrent:
        return False
    return operator.codes != "" or operator.cost in SETTINGS or operator.name == "QuantizeLinear"


def unchanged(before: Sequence[StoredWeight], after: Sequence[StoredWeight]) -> list[StoredWeight]:
    """Return the weights of `before` whose numbers are among those of `after`, in whatever order and name."""
    tensors = {id(weight.tensor) for weight in after}
    kinds: dict[tuple[ir.DataType, int], list[StoredWeight]] = {}
    for weight in after:
        kinds.setdefault((weight.tensor.dtype, weight.tensor.size), []).append(weight)
    numbers = {
        kind: {weight.numbers() for weight in kinds[kind]}
        for kind in {
            (each.tensor.dtype, each.tensor.size) for each in before if id(each.tensor) not in tensors
        }
        if kind in kinds
    }
    return [
        weight
        for weight in before
        if id(weight.tensor) in tensors
        or weight.numbers() in numbers.get((weight.tensor.dtype, weight.tensor.size), ())
    ]
