"""Shapes node by node, with the sizes that shape arithmetic computes on the way."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from compress.errors import about
from compress.graph.edit import bodies
from compress.graph.node_shapes import DATA, NodeShapes, called, described, of_node, signature
from compress.graph.rounds import Rounds, grown, of_loop
from compress.graph.shape_rules.call import Call
from compress.graph.shape_rules.sequences import SEQUENCE_RULES, Elements, Found, SequenceRule, largest
from compress.graph.tensor_info import SMALL, TensorInfo


@dataclass(slots=True)
class Propagation:
    """Shapes and types of all values that follow from some, node by node; no activation is ever computed.

    Rules of our own come first, then ONNX's inference of the node's operator, with the values of small
    constants. Arithmetic on sizes (Shape, Gather, Concat and so on) is computed by ONNX's reference
    implementation. Bodies of If, Loop, Scan and SequenceMap are gone through with what comes into them. An
    operator whose output's size depends on the data counts with the largest that it may give; a Loop whose
    number of rounds does, with the measured number, or else with one.

    Attributes:
        model: the model.
        known: shape and type by name; what is found is added.
        constants: contents of small values by name; what is found is added.
        measured: rounds of Loops by name, where the graph does not state them.
        others: names of values that are no tensors.
        sequences: the elements of sequences by name.
        rounds: how often each body runs.
        taken: the branches of those Ifs whose condition is known.
        reasons: by name of a value, why its shape is not known.
    """

    model: ir.Model
    known: dict[str, TensorInfo]
    constants: dict[str, np.ndarray]
    measured: Mapping[str, int] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    sequences: dict[str, Elements] = field(default_factory=dict)
    rounds: dict[ir.Node, Rounds] = field(default_factory=dict)
    taken: dict[ir.Node, ir.Graph] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    _owners: dict[str, ir.Value] = field(default_factory=dict)
    _done: dict[Hashable, NodeShapes] = field(default_factory=dict)

    def graph(self, graph: ir.Graph) -> None:
        """Go through one graph, and the bodies in it.

        Raises:
            ModelError: a node is malformed.
        """
        for node in graph:
            with about(called(node)):
                self._step(node)

    def _claim(self, values: Iterable[ir.Value]) -> None:
        """Forget what is known by the names of some values from other bodies, which may use them too."""
        for value in values:
            if value.name and self._owners.setdefault(value.name, value) is not value:
                self._owners[value.name] = value
                for found in (self.known, self.constants, self.sequences):
                    found.pop(value.name, None)

    def _step(self, node: ir.Node) -> None:
        self._claim(node.outputs)
        inside = bodies(node)
        on_sequences = self._sequence_rule(node)
        if on_sequences is not None:
            self._sequence(node, on_sequences)
        elif inside and not node.domain and node.op_type in _BODIES:
            _BODIES[node.op_type](self, node, inside)
        elif all(value is None or value.name in self.known for value in node.inputs) and not inside:
            self._node(node)
        else:
            for body in inside:
                self.graph(body)
            self.others.update(self._never_tensors(node))

    def _sequence_rule(self, node: ir.Node) -> SequenceRule | None:
        if node.domain:
            return None
        if node.op_type == "Identity" and node.inputs and isinstance(self._found(node.inputs[0]), list):
            return SEQUENCE_RULES["Optional"]
        return SEQUENCE_RULES.get(node.op_type)

    def _sequence(self, node: ir.Node, rule: SequenceRule) -> None:
        """Follow an operator that makes or reads a sequence."""
        elements = [
            self.sequences.get(value.name or "") if value is not None else None for value in node.inputs
        ]
        try:
            found = rule(self._call(node), elements)
        except (ValueError, IndexError):  # an input is not known, or there is no such element
            found = None
        self._learn(node, node.outputs[0], found)
        if found is None:
            self.others.update(self._never_tensors(node))

    def _found(self, value: ir.Value | None) -> TensorInfo | Elements | None:
        """Return what is known of a value, be it a tensor or a sequence."""
        name = value.name or "" if value is not None else ""
        return self.sequences.get(name, self.known.get(name))

    def _learn(self, node: ir.Node, value: ir.Value, found: Found) -> None:
        """Note what a node tells of one of its outputs."""
        if not value.name:
            return
        if isinstance(found, np.ndarray):
            self.constants[value.name] = found
            found = described(found)
        if isinstance(found, TensorInfo):
            self.known.setdefault(value.name, found)
        elif found is not None:
            self.sequences[value.name] = found
            self.others.add(value.name)
        else:
            self.reasons[value.name] = f"{called(node)} {DATA}"

    def _never_tensors(self, node: ir.Node) -> Iterator[str]:
        """Yield the outputs that are sequences or optional values, whatever the node reads."""
        try:
            schema = onnx.defs.get_schema(node.op_type, self._call(node).version, node.domain)
        except onnx.defs.SchemaError:
            return
        for value, formal in zip(node.outputs, schema.outputs, strict=False):
            if value.name and not any(kind.startswith("tensor") for kind in formal.types):
                yield value.name

    def _node(self, node: ir.Node) -> None:
        call = self._call(node)
        key = signature(call)
        found = self._done.get(key) if key is not None else None
        if found is None:
            found = self._done[key] = of_node(call)
        for place, (value, info) in enumerate(zip(node.outputs, found.infos, strict=True)):
            if not value.name:
                continue
            if place in found.others:
                self.others.add(value.name)
            elif info is not None:
                self.known.setdefault(value.name, info)
            else:
                self.reasons[value.name] = f"{called(node)} {found.reason}"
        names = [value.name or "" for value in node.outputs]
        self.constants.update(zip(names, found.values, strict=False))

    def _call(self, node: ir.Node) -> Call:
        names = [value.name or "" if value is not None else "" for value in node.inputs]
        version = node.version or self.model.graph.opset_imports.get(node.domain, 1)
        return Call(node, version, [*map(self.known.get, names)], [*map(self.constants.get, names)])

    def _enter(self, body: ir.Graph, given: Sequence[TensorInfo | Elements | None]) -> None:
        """Give the inputs of a body what comes into it."""
        self._claim(body.inputs)
        for value, found in zip(body.inputs, given, strict=False):
            if isinstance(found, TensorInfo) and value.name:
                self.known.setdefault(value.name, found)
            elif isinstance(found, list) and value.name:
                self.sequences[value.name] = found
                self.others.add(value.name)

    def _forget(self, body: ir.Graph) -> None:
        """Forget what was found in a body, to go through it once more with other inputs."""
        inner = [value for node in body.all_nodes() for value in node.outputs]
        graphs = [body, *(each for node in body.all_nodes() for each in bodies(node))]
        for value in (*inner, *(each for graph in graphs for each in graph.inputs)):
            for found in (self.known, self.constants, self.sequences):
                found.pop(value.name or "", None)

    def _if(self, node: ir.Node, branches: Sequence[ir.Graph]) -> None:
        """Follow the branch that is taken; if that is not known, each output is the largest of all."""
        for branch in branches:
            self.graph(branch)
        condition = self.constants.get(node.inputs[0].name or "") if node.inputs[0] is not None else None
        if condition is not None and condition.size == 1:
            taken = node.attributes["then_branch" if condition.any() else "else_branch"].as_graph()
            self.taken[node] = taken
            branches = [taken]
        for value, *results in zip(node.outputs, *(branch.outputs for branch in branches), strict=False):
            if len(results) == 1 and results[0].name in self.constants:
                self.constants[value.name or ""] = self.constants[results[0].name or ""]
            self._leave(node, value, results, _larger([self._found(result) for result in results]))

    def _leave(self, node: ir.Node, value: ir.Value, results: Iterable[ir.Value], found: Found) -> None:
        """Note what a node with bodies tells of an output, which is one of some results inside."""
        self._learn(node, value, found)
        if found is None and value.name and any(result.name in self.others for result in results):
            self.others.add(value.name)

    def _loop(self, node: ir.Node, inside: Sequence[ir.Graph]) -> None:
        """Follow what a Loop or a Scan carries from round to round, and what it collects."""
        (body,) = inside
        first = 2 if node.op_type == "Loop" else 0
        scanned = node.attributes.get_int("num_scan_inputs", 0)
        carried = [self._found(value) for value in node.inputs[first : len(node.inputs) - scanned]]
        sliced = self._slices(node, scanned)
        start = [TensorInfo((), ir.DataType.INT64), TensorInfo((), ir.DataType.BOOL)][:first]
        self._enter(body, [*start, *carried, *sliced])
        self.graph(body)
        rounds = self._rounds(node, body)
        self.rounds[node] = rounds
        outputs = body.outputs[first // 2 :]
        after = [self._found(value) for value in outputs[: len(carried)]]
        middle = (rounds.count - 1) // 2
        if middle > 0 and after != carried:
            self._forget(body)
            self._enter(body, [*start, *_carried_on(carried, after, middle), *sliced])
            self.graph(body)
            if [self._found(value) for value in outputs[: len(carried)]] != _carried_on(
                carried, after, middle + 1
            ):
                after = [None] * len(carried)
        found: list[Found] = [*_carried_on(carried, after, rounds.count)]
        found += self._collected(node, outputs[len(carried) :], rounds.count)
        for value, result, each in zip(node.outputs, outputs, found, strict=False):
            self._leave(node, value, [result], each)

    def _slices(self, node: ir.Node, count: int) -> list[TensorInfo | None]:
        """Return what a Scan gives its body of the tensors that it goes through."""
        if not count:
            return []
        axes = node.attributes.get_ints("scan_input_axes", (0,) * count)
        infos = [
            self.known.get(value.name or "") if value is not None else None for value in node.inputs[-count:]
        ]
        return [
            info and info._replace(shape=tuple(np.delete(info.shape, axis).tolist()))
            for info, axis in zip(infos, axes, strict=True)
        ]

    def _collected(
        self, node: ir.Node, results: Sequence[ir.Value], count: int
    ) -> Iterator[TensorInfo | None]:
        """Yield what a Loop or a Scan stacks, one slice a round."""
        axes = node.attributes.get_ints("scan_output_axes", ())
        for place, result in enumerate(results):
            info = self.known.get(result.name or "")
            axis = axes[place] if place < len(axes) else 0
            if info is None:
                yield None
                continue
            shape = list(info.shape)
            shape.insert(axis if axis >= 0 else axis + len(shape) + 1, count)
            yield info._replace(shape=tuple(shape))

    def _rounds(self, node: ir.Node, body: ir.Graph) -> Rounds:
        """Return how often a body runs."""
        if node.op_type == "Loop":
            return of_loop(node, body, self.constants, self.measured)
        axes = node.attributes.get_ints("scan_input_axes", (0,))
        scanned = node.inputs[-node.attributes["num_scan_inputs"].as_int()]
        info = self.known.get(scanned.name or "") if scanned is not None else None
        return Rounds(1, "assumed") if info is None else Rounds(info.shape[axes[0]], "stated")

    def _map(self, node: ir.Node, inside: Sequence[ir.Graph]) -> None:
        """Follow a SequenceMap: its body runs for each element; what is known inside is of the largest."""
        (body,) = inside
        given = [self._found(value) for value in node.inputs]
        elements = given[0]
        if not isinstance(elements, list):
            self.graph(body)
            self.others.update(self._never_tensors(node))
            return
        done: dict[Hashable, list[TensorInfo | None]] = {}
        keys = [
            tuple(each[place] if isinstance(each, list) else each for each in given)
            for place in range(len(elements))
        ]
        for key in sorted(set(keys), key=lambda key: key[0].elements if key[0] else 0):
            self._forget(body)
            self._enter(body, key)
            self.graph(body)
            done[key] = [self.known.get(value.name or "") for value in body.outputs]
        self.rounds[node] = Rounds(len(elements), "stated")
        for place, value in enumerate(node.outputs):
            found = [info for key in keys if (info := done[key][place]) is not None]
            self._leave(node, value, [value], found if len(found) == len(keys) else None)
            self.others.add(value.name or "")


_BODIES = {
    "If": Propagation._if,
    "Loop": Propagation._loop,
    "Scan": Propagation._loop,
    "SequenceMap": Propagation._map,
}
"""How operators with bodies are followed."""


def _carried_on(
    before: Sequence[TensorInfo | Elements | None], after: Sequence[TensorInfo | Elements | None], rounds: int
) -> list[TensorInfo | Elements | None]:
    """Return what is carried through a loop after some rounds, if each changes it as the first does."""
    return [
        None if old is None or new is None else grown(old, new, rounds)
        for old, new in zip(before, after, strict=False)
    ]


def _larger(found: Sequence[TensorInfo | Elements | None]) -> TensorInfo | Elements | None:
    """Return the larger of the results of several branches, of those that are known."""
    sequences = [each for each in found if isinstance(each, list)]
    if sequences:
        return max(sequences, key=lambda elements: sum(info.elements for info in elements))
    return largest([each for each in found if isinstance(each, TensorInfo)])


def propagate(
    model: ir.Model,
    known: dict[str, TensorInfo],
    assumed: Mapping[str, np.ndarray],
    measured: Mapping[str, int],
) -> Propagation:
    """Add to `known` the shape and type of every value that follows from those in it.

    Args:
        model: the model; it is not changed.
        known: shape and type by name, of the inputs and initializers at least.
        assumed: contents of inputs, where they are to count as known.
        measured: rounds of Loops by name, where the graph does not state them.

    Returns:
        What is known beyond shapes, and why some are not.
    """
    constants = {
        name: np.asarray(value.const_value.numpy())
        for graph in model.graphs()
        for name, value in graph.initializers.items()
        if value.const_value is not None and value.const_value.size <= SMALL
    }
    found = Propagation(model, known, constants | dict(assumed), measured)
    found.graph(model.graph)
    return found
