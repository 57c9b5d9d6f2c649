"""Arithmetic in another float type: nodes change over one by one, and Casts stand where types meet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from compress.graph import edit
from compress.graph.layers import StoredTensor

SMALLEST_HALF = float(ir.DataType.FLOAT16.numpy().type(6e-8))
"""The smallest positive number of float16; smaller constants become this one, since many are divided by."""
HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""Float types of 16 bits."""


def compute_in(
    model: ir.Model,
    wanted: ir.DataType,
    instead_of: Collection[ir.DataType],
    chosen: Callable[[ir.Node], bool] = lambda _: True,
) -> list[ir.Node]:
    """Let nodes compute in the float type `wanted`, in place, and return those that do so now.

    Inputs and outputs keep their types, those of bodies too. A node keeps its type if its operator does
    not take `wanted`, if it is not known, or if it reads constants beyond the range of `wanted`: what it
    computes is then cut to that range before others read it.

    Args:
        model: the model, with functions inlined.
        wanted: the type to compute in.
        instead_of: the types that it replaces.
        chosen: tells whether a node may change over.
    """
    conversion = _Conversion(model, wanted, frozenset(instead_of), chosen)
    conversion.convert(model.graph)
    conversion.tidy()
    return conversion.converted


def computes_in(model: ir.Model, types: Collection[ir.DataType]) -> bool:
    """Tell whether a node computes or moves values of one of some types, other than stored weights."""
    return any(
        _made(node) in types or any(each is not None and _is_of(each, types) for each in node.inputs)
        for graph in model.graphs()
        for node in graph
    )


def _is_of(value: ir.Value, types: Collection[ir.DataType]) -> bool:
    """Tell whether a value is of one of some types, and no stored weight that only Casts read."""
    stored = value.is_initializer() and all(node.op_type == "Cast" for node in value.consumers())
    return value.dtype in types and not stored


@dataclass
class _Conversion:
    """A conversion under way.

    Attributes:
        model: the model.
        wanted: the type to compute in.
        instead_of: the types that it replaces.
        chosen: tells whether a node may change over.
        converted: the nodes that have changed over.
        former: the type that each value had, None where that is unknown.
        twins: each value in another type, by the value and that type.
    """

    model: ir.Model
    wanted: ir.DataType
    instead_of: frozenset[ir.DataType]
    chosen: Callable[[ir.Node], bool]
    converted: list[ir.Node] = field(default_factory=list)
    former: dict[ir.Value, ir.DataType | None] = field(default_factory=dict)
    twins: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)

    def convert(self, graph: ir.Graph) -> None:
        """Convert the nodes of a graph in order, each after the bodies inside it."""
        for node in list(graph):
            for body in edit.bodies(node):
                self.convert(body)
            if not edit.bodies(node) and self._makes_wanted(node):
                self._change_output(node)
            else:
                self._convert_node(node)
        for value in dict.fromkeys(graph.outputs):
            former = self._former(value)
            if former is not None and value.dtype != former:
                edit.put_out(value, self._as_type(value, former))

    def tidy(self) -> None:
        """Remove constants of the former type that nothing reads any more, and Casts without effect."""
        for (value, _), twin in self.twins.items():
            if twin.is_initializer() and not value.uses() and not value.is_graph_output():
                name = value.name
                edit.remove_unread(value)
                twin.name = name
        casts = [node for graph in self.model.graphs() for node in graph if node.op_type == "Cast"]
        for node in casts:
            source = node.inputs[0]
            if source is not None and source.dtype == self.wanted == _made(node):
                edit.bypass(node)

    def _makes_wanted(self, node: ir.Node) -> bool:
        """Tell whether an attribute says that a node makes one of the types to replace."""
        made = _made(node)
        return made is not None and made in self.instead_of and self.chosen(node)

    def _change_output(self, node: ir.Node) -> None:
        self.former[node.outputs[0]] = _made(node)
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", self.wanted)
        else:
            tensor = node.attributes["value"].as_tensor()
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_converted(tensor, self.wanted)))
        self._set_type(node, node.outputs[0])

    def _convert_node(self, node: ir.Node) -> None:
        """Give a node inputs of the wanted type where its operator takes it, and else of the former types."""
        schema = None if edit.bodies(node) else _schema(node, self.model)
        changing = self._changing(node, schema) if schema is not None else frozenset[str]()
        for place, value in enumerate(node.inputs):
            if value is None:
                continue
            changes = schema is not None and _parameter(schema.inputs, place).typeStr in changing
            due = self.wanted if changes else self._former(value)
            if due is not None and value.dtype != due:
                node.replace_input_with(place, self._as_type(value, due))
        for place, value in enumerate(node.outputs):
            made = self._made_type(node, schema, place) if schema is not None else _of_bodies(node, place)
            self.former[value] = value.dtype or made
            if schema is not None and _parameter(schema.outputs, place).typeStr in changing:
                self._set_type(node, value)
            elif value.type is None and self.former[value] is not None:
                value.type = ir.TensorType(self.former[value])  # type: ignore[arg-type]

    def _set_type(self, node: ir.Node, value: ir.Value) -> None:
        value.type = ir.TensorType(self.wanted)
        if node not in self.converted[-1:]:
            self.converted.append(node)

    def _former(self, value: ir.Value) -> ir.DataType | None:
        """Return the type that a value had, None if it is no tensor or the type is unknown."""
        if value in self.former:
            return self.former[value]
        return value.dtype if isinstance(value.type, ir.TensorType) else None

    def _changing(self, node: ir.Node, schema: Any) -> frozenset[str]:
        """Return the type variables of an operator that become the wanted type."""
        bound = self._bound(node, schema)
        found = frozenset(
            name
            for name, types in bound.items()
            if types <= self.instead_of and _tensor(self.wanted) in _allowed(schema, name)
        )
        fits = found and self.chosen(node) and not self._overflows(node) and not self._holds_type(node)
        if not fits or _makes_sequences(schema) or not self._outputs_follow(node, schema, set(bound)):
            return frozenset()
        return found

    def _holds_type(self, node: ir.Node) -> bool:
        """Tell whether the bits or the attributes of a node are in one of the types to replace."""
        tensors = [each for each in node.attributes.values() if each.type == ir.AttributeType.TENSOR]
        return node.op_type == "BitCast" or any(each.as_tensor().dtype in self.instead_of for each in tensors)

    def _outputs_follow(self, node: ir.Node, schema: Any, bound: set[str]) -> bool:
        """Tell whether the inputs decide the type of every output that has one of the types to replace."""
        return all(
            _parameter(schema.outputs, place).typeStr in bound
            for place, value in enumerate(node.outputs)
            if value.dtype in self.instead_of
        )

    def _bound(self, node: ir.Node, schema: Any) -> dict[str, set[ir.DataType | None]]:
        """Return the former types of a node's inputs by the operator's type variable."""
        bound: dict[str, set[ir.DataType | None]] = {}
        for place, value in enumerate(node.inputs):
            if value is not None:
                bound.setdefault(_parameter(schema.inputs, place).typeStr, set()).add(self._former(value))
        return bound

    def _made_type(self, node: ir.Node, schema: Any, place: int) -> ir.DataType | None:
        """Return the type that a node's output had, as far as its inputs or the operator tell it."""
        name = _parameter(schema.outputs, place).typeStr
        types = self._bound(node, schema).get(name, set())
        if not types and name not in {each.type_param_str for each in schema.type_constraints}:
            types = {each for each in ir.DataType if _tensor(each) == name}
        return next(iter(types)) if len(types) == 1 else None

    def _overflows(self, node: ir.Node) -> bool:
        """Tell whether a node reads finite constants beyond the range of the wanted type."""
        return any(
            value is not None and value.is_initializer() and _exceeds(value, self.wanted)
            for value in node.inputs
        )

    def _as_type(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return a value as another type: a constant of it, or the output of a Cast behind it."""
        twin = self.twins.get((value, dtype))
        if twin is None:
            constant = value.is_initializer() and not value.is_graph_input()
            twin = self._constant(value, dtype) if constant else self._cast(value, dtype)
            self.twins[value, dtype] = twin
            self.former[twin] = self._former(value)
        return twin

    def _constant(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        tensor, graph = value.const_value, edit.graph_of(value)
        assert tensor is not None  # an initializer has content
        name = f"{value.name}.{str(dtype).lower()}"
        while name in graph.initializers:
            name += "_"
        wider = dtype.itemsize > tensor.dtype.itemsize
        content = StoredTensor(tensor, dtype) if wider else ir.tensor(_converted(tensor, dtype))
        twin = ir.val(name, const_value=content)
        graph.register_initializer(twin)
        return twin

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        producer, graph = value.producer(), edit.graph_of(value)
        source, nodes = value, []
        if producer is not None and dtype == self.wanted and self._overflows(producer):
            number = value.dtype.numpy() if value.dtype else np.dtype(np.float32)
            for op_type, bound in (
                ("Max", -dtype.max),
                ("Min", dtype.max),
            ):  # Clip has no such inputs in old sets
                name = f"{dtype}.{op_type}".lower()
                limit = edit.add_initializer(graph, name, np.array(bound, number))
                nodes.append(ir.node(op_type, [source, limit], name=f"{value.name}.{op_type.lower()}"))
                source = nodes[-1].outputs[0]
        nodes.append(ir.node("Cast", [source], {"to": dtype}, name=f"{value.name}.{str(dtype).lower()}"))
        for node in nodes:
            node.outputs[0].name, node.outputs[0].shape = f"{node.name}.output", value.shape
            node.outputs[0].type = value.type
        nodes[-1].outputs[0].type = ir.TensorType(dtype)
        edit.insert_after(value, *nodes)
        return nodes[-1].outputs[0]


def _of_bodies(node: ir.Node, place: int) -> ir.DataType | None:
    """Return the type of an output of an If, a Loop or a Scan, if its body puts out a tensor for it."""
    for body in edit.bodies(node)[:1]:
        results = body.outputs[1:] if node.op_type == "Loop" else body.outputs
        if place < len(results) and isinstance(results[place].type, ir.TensorType):
            return results[place].dtype
    return None


def _made(node: ir.Node) -> ir.DataType | None:
    """Return the element type that an attribute of a Cast or a ConstantOfShape names."""
    if node.domain == "" and node.op_type == "Cast":
        return ir.DataType(node.attributes.get_int("to", 0))
    if node.domain == "" and node.op_type == "ConstantOfShape" and "value" in node.attributes:
        return node.attributes["value"].as_tensor().dtype
    return None


def _converted(tensor: ir.TensorProtocol, dtype: ir.DataType) -> np.ndarray:
    """Return the content of a tensor in another float type; small numbers stay apart from zero."""
    content = tensor.numpy()
    if dtype == ir.DataType.FLOAT16:
        small = (content != 0) & (np.abs(content) < SMALLEST_HALF)
        content = np.where(small, np.copysign(SMALLEST_HALF, content), content)
    return content.astype(dtype.numpy())


def _exceeds(value: ir.Value, dtype: ir.DataType) -> bool:
    tensor = value.const_value
    if tensor is None or not tensor.dtype.is_floating_point() or tensor.dtype.itemsize <= dtype.itemsize:
        return False
    content = np.abs(tensor.numpy())
    return bool((content[np.isfinite(content)] > dtype.max).any())


@cache
def _schemas() -> dict[tuple[str, str], list[Any]]:
    """Return the operators that ONNX Runtime knows, by domain and name, the newest version first."""
    found: dict[tuple[str, str], list[Any]] = {}
    for schema in sorted(get_all_operator_schema(), key=lambda each: -each.since_version):
        found.setdefault((schema.domain, schema.name), []).append(schema)
    return found


def _schema(node: ir.Node, model: ir.Model) -> Any:
    """Return the declaration of a node's operator; None if the runtime has none."""
    version = node.version or model.opset_imports.get(node.domain, 1)
    versions = _schemas().get((node.domain, node.op_type), ())
    return next((each for each in versions if each.since_version <= version), None)


def _parameter(parameters: Sequence[Any], place: int) -> Any:
    """Return the declaration of an input or output; the last may repeat."""
    return parameters[min(place, len(parameters) - 1)]


def _allowed(schema: Any, variable: str) -> Sequence[str]:
    """Return the types that a type variable may stand for; none if it is a type itself."""
    names = (each.allowed_type_strs for each in schema.type_constraints if each.type_param_str == variable)
    return next(names, ())


def _makes_sequences(schema: Any) -> bool:
    """Tell whether an operator gives sequences, whose types follow those of its inputs unseen."""
    return any(
        allowed and not any(name.startswith("tensor") for name in allowed)
        for allowed in (_allowed(schema, each.typeStr) for each in schema.outputs)
    )


def _tensor(dtype: ir.DataType) -> str:
    """Return how an operator's declaration writes a tensor of an element type."""
    return f"tensor({str(dtype).lower()})"
