"""Shapes node by node, with the sizes that shape arithmetic computes on the way."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from compress.graph.edit import bodies
from compress.graph.shape_rules import BOUNDS, RULES
from compress.graph.shape_rules.call import Call, apply
from compress.graph.tensor_info import SMALL, TensorInfo, infer_types, info_of

DATA = "gives a size that depends on the content of its inputs; make that content a constant of the model"
"""Why a shape is not known, for a message that has named the node."""
UNKNOWN_OPERATOR = (
    "is of an operator whose shapes neither ONNX nor compress knows; write the shapes of its outputs into "
    "the model, or add a rule to compress/graph/shape_rules"
)
"""Why a shape is not known, for a message that has named the node."""
_PLAIN = frozenset(ir.AttributeType[name + many] for name in ("INT", "FLOAT", "STRING") for many in ("", "S"))
"""Types of attributes whose values can be compared."""


@dataclass(slots=True)
class _Found:
    """What one node tells of its outputs.

    Attributes:
        infos: their shapes and types; None for what is not known, or is no tensor.
        values: their contents, where they follow from small constants.
        others: the places of those that are no tensors.
        reason: why the shape of some is not known.
    """

    infos: list[TensorInfo | None]
    values: Sequence[np.ndarray] = ()
    others: frozenset[int] = frozenset()
    reason: str = ""


@dataclass(slots=True)
class Propagation:
    """Shapes and types of all values that follow from some, node by node; no activation is ever computed.

    Rules of our own come first, then ONNX's inference of the node's operator, with the values of small
    constants. Arithmetic on sizes (Shape, Gather, Concat and so on) is computed by ONNX's reference
    implementation. Bodies of If, Loop and Scan are gone through with what comes into them. An operator
    whose output's size depends on the data counts with the largest that it may give.

    Attributes:
        model: the model.
        known: shape and type by name; what is found is added.
        constants: contents of small values by name; what is found is added.
        others: names of values that are no tensors.
        reasons: by name of a value, why its shape is not known.
    """

    model: ir.Model
    known: dict[str, TensorInfo]
    constants: dict[str, np.ndarray]
    others: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    _done: dict[Hashable, _Found] = field(default_factory=dict)

    def graph(self, graph: ir.Graph) -> None:
        """Go through one graph, and the bodies in it."""
        for node in graph:
            inside = bodies(node)
            for body in inside:
                self._enter(node, body)
                self.graph(body)
            if inside:
                self._leave(node, inside)
            elif all(value is None or value.name in self.known for value in node.inputs):
                self._node(node)
            else:
                self.others.update(self._never_tensors(node))

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
        key = self._signature(node)
        found = self._done.get(key) if key is not None else None
        if found is None:
            found = self._done[key] = self._infer(node)
        for place, (value, info) in enumerate(zip(node.outputs, found.infos, strict=True)):
            if not value.name:
                continue
            if place in found.others:
                self.others.add(value.name)
            elif info is not None:
                self.known.setdefault(value.name, info)
            else:
                self.reasons[value.name] = f"{_called(node)} {found.reason}"
        names = [value.name or "" for value in node.outputs]
        self.constants.update(zip(names, found.values, strict=False))

    def _infer(self, node: ir.Node) -> _Found:
        """Return what one node tells: by rule, else by ONNX, else by its content, else an upper bound."""
        call = self._call(node)
        key, count = (node.domain, node.op_type), len(node.outputs)
        found = _Found([None] * count, reason=DATA)
        try:
            if key in RULES:
                infos = list(apply(RULES[key], call))
            else:
                types = self._types(node, call.version)
                infos = [info_of(types.get(value.name or "")) for value in node.outputs]
                others = (
                    place
                    for place, name in enumerate(value.name or "" for value in node.outputs)
                    if name in types and not types[name].HasField("tensor_type")
                )
                found.others = frozenset(others)
            found.infos[: len(infos)] = infos
        except onnx.defs.SchemaError:
            found.reason = UNKNOWN_OPERATOR
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
            found.reason = f"does not fit its inputs: {error}"
        if not found.others:
            found.values = self._compute(node, call.version, found.infos)
        if found.values:
            found.infos = [_described(array) for array in found.values]
        elif None in found.infos and key in BOUNDS:
            most = [*apply(BOUNDS[key], call), *[None] * count]
            found.infos = [info or bound for info, bound in zip(found.infos, most, strict=False)]
        return found

    def _call(self, node: ir.Node) -> Call:
        names = [value.name or "" if value is not None else "" for value in node.inputs]
        version = node.version or self.model.graph.opset_imports.get(node.domain, 1)
        return Call(node, version, [*map(self.known.get, names)], [*map(self.constants.get, names)])

    def _types(self, node: ir.Node, version: int) -> Mapping[str, onnx.TypeProto]:
        names = {value.name for value in node.inputs if value is not None and value.name}
        known = {name: self.known[name] for name in names}
        constants = {name: self.constants[name] for name in names if name in self.constants}
        return infer_types(ir.serde.serialize_node(node), version, known, constants)

    def _compute(
        self, node: ir.Node, version: int, infos: Sequence[TensorInfo | None]
    ) -> Sequence[np.ndarray]:
        """Return the contents of a node's outputs, if all of them and all inputs are there and small."""
        if any(info is not None and info.elements > SMALL for info in infos):
            return ()
        names = [value.name or "" for value in node.inputs if value is not None]
        if node.op_type in ("Shape", "Size") and not node.domain:
            return [_sizes(node, self.known[names[0]].shape)]
        if any(name not in self.constants for name in names) or node.domain or _has_no_values(node):
            return ()
        from onnx.reference import ReferenceEvaluator  # loads hundreds of operators, and few graphs need it

        try:
            evaluator = ReferenceEvaluator(ir.serde.serialize_node(node), opsets={"": version})
            computed = evaluator.run(None, {name: self.constants[name] for name in names})
        except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError):
            return ()
        arrays = [np.asarray(array) for array in computed]
        return arrays if all(array.size <= SMALL for array in arrays) else ()

    def _signature(self, node: ir.Node) -> Hashable:
        """Return what decides a node's result; None where that is more than numbers and words."""
        unlike = any(attribute.type not in _PLAIN for attribute in node.attributes.values())
        if unlike or node.op_type == "ReorderInput":  # whose result its readers decide
            return None
        names = [value.name or "" if value is not None else "" for value in node.inputs]
        constants = self.constants
        return (
            node.op_identifier(),
            len(node.outputs),
            tuple((name, attribute.value) for name, attribute in node.attributes.items()),
            tuple(map(self.known.get, names)),
            tuple(constants[name].tobytes() if name in constants else None for name in names),
        )

    def _enter(self, node: ir.Node, body: ir.Graph) -> None:
        """Give the inputs of a loop's body the shapes of what comes into it."""
        infos = [self.known.get(value.name or "") if value is not None else None for value in node.inputs]
        if node.op_type == "Loop":
            infos[:2] = [TensorInfo((), ir.DataType.INT64), TensorInfo((), ir.DataType.BOOL)]
        elif node.op_type == "Scan":
            count = node.attributes["num_scan_inputs"].as_int()
            axes = node.attributes.get_ints("scan_input_axes", (0,) * count)
            first = len(infos) - count
            infos[first:] = [
                info and info._replace(shape=tuple(np.delete(info.shape, axis).tolist()))
                for info, axis in zip(infos[first:], axes, strict=True)
            ]
        for value, info in zip(body.inputs, infos, strict=False):
            if info is not None and value.name:
                self.known.setdefault(value.name, info)

    def _leave(self, node: ir.Node, inside: Sequence[ir.Graph]) -> None:
        """Give the outputs of a node with bodies the shapes that follow from those inside."""
        if node.op_type == "If":
            found = self._of_branches(node, inside)
        elif node.op_type in ("Loop", "Scan"):
            found = self._of_rounds(node, inside[0])
        else:
            return
        for value, info in zip(node.outputs, found, strict=False):
            if info is not None and value.name:
                self.known.setdefault(value.name, info)
            elif value.name:
                self.reasons[value.name] = f"{_called(node)} {DATA}"

    def _of_branches(self, node: ir.Node, branches: Sequence[ir.Graph]) -> Iterator[TensorInfo | None]:
        """Yield the outputs of the branch that is taken; if that is not known, the largest of those known."""
        condition = self.constants.get(node.inputs[0].name or "") if node.inputs[0] is not None else None
        if condition is not None and condition.size == 1:
            taken = "then_branch" if condition.any() else "else_branch"
            branches = [node.attributes[taken].as_graph()]
        for value, *results in zip(node.outputs, *(branch.outputs for branch in branches), strict=False):
            names = [result.name or "" for result in results]
            if len(names) == 1 and names[0] in self.constants:
                self.constants[value.name or ""] = self.constants[names[0]]
            infos = [self.known[name] for name in names if name in self.known]
            yield max(infos, key=lambda info: info.elements, default=None)

    def _of_rounds(self, node: ir.Node, body: ir.Graph) -> Iterator[TensorInfo | None]:
        """Yield what a Loop or a Scan carries from round to round, and then what it collects."""
        scanned = node.attributes.get_int("num_scan_inputs", 0)
        first = 2 if node.op_type == "Loop" else 0
        carried = node.inputs[first : len(node.inputs) - scanned]
        results = [self.known.get(value.name or "") for value in body.outputs[first // 2 :]]
        for value, after in zip(carried, results, strict=False):
            before = self.known.get(value.name or "") if value is not None else None
            yield after if after == before else None
        count = self._rounds(node)
        axes = node.attributes.get_ints("scan_output_axes", ())
        for place, info in enumerate(results[len(carried) :]):
            axis = axes[place] if place < len(axes) else 0
            if info is None or count is None:
                yield None
            else:
                shape = list(info.shape)
                shape.insert(axis if axis >= 0 else axis + len(shape) + 1, count)
                yield info._replace(shape=tuple(shape))

    def _rounds(self, node: ir.Node) -> int | None:
        """Return how often a body runs, at most; None if the data decides."""
        if node.op_type == "Loop":
            most = self._call(node).number(0)
            return most if most is not None and 0 <= most <= np.iinfo(np.int32).max else None
        axes = node.attributes.get_ints("scan_input_axes", (0,))
        scanned = node.inputs[-node.attributes["num_scan_inputs"].as_int()]
        info = self.known.get(scanned.name or "") if scanned is not None else None
        return info.shape[axes[0]] if info is not None else None


def propagate(
    model: ir.Model, known: dict[str, TensorInfo], assumed: Mapping[str, np.ndarray]
) -> Propagation:
    """Add to `known` the shape and type of every value that follows from those in it.

    Args:
        model: the model; it is not changed.
        known: shape and type by name, of the inputs and initializers at least.
        assumed: contents of inputs, where they are to count as known.

    Returns:
        What is known beyond shapes, and why some are not.
    """
    constants = {
        name: np.asarray(value.const_value.numpy())
        for graph in model.graphs()
        for name, value in graph.initializers.items()
        if value.const_value is not None and value.const_value.size <= SMALL
    }
    found = Propagation(model, known, constants | dict(assumed))
    found.graph(model.graph)
    return found


def _called(node: ir.Node) -> str:
    """Return how a message calls a node."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"node {node.name!r} ({operator})"


def _described(array: np.ndarray) -> TensorInfo:
    return TensorInfo(array.shape, ir.DataType.from_numpy(array.dtype))


def _has_no_values(node: ir.Node) -> bool:
    """Tell whether a node's result is not a matter of its inputs alone."""
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial", "Dropout")


def _sizes(node: ir.Node, shape: tuple[int, ...]) -> np.ndarray:
    if node.op_type == "Size":
        return np.array(np.prod(shape, dtype=np.int64))
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    chosen = shape[start.as_int() if start else 0 : end.as_int() if end else len(shape)]
    return np.array(chosen, np.int64)
