"""An ONNX graph as a `torch.nn.Module` that can be trained, whatever the graph came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from compress.errors import ModelError, did_you_mean
from compress.graph import edit
from compress.graph.precision import HALVES
from compress.trainable.operators import Operator, Role, lookup, torch_type
from compress.trainable.operators.host import HOST, LONGEST, Host
from compress.trainable.roles import trained_initializers

OLDEST_OPSET = 11
"""The operator table does not have the meanings of older opsets."""


_NARROW = {
    ir.DataType.INT2: np.int8,
    ir.DataType.INT4: np.int8,
    ir.DataType.UINT2: np.uint8,
    ir.DataType.UINT4: np.uint8,
}
"""Integer types that torch lacks, and the numpy types that hold them."""
_TYPE_SETTERS = {"CastLike": 1, "QuantizeLinear": 2}
"""Operators whose result has the type of an input, and which; it must be the true type."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One node, ready to run."""

    label: str
    operator: Operator
    host: Callable[..., Any] | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    spent: tuple[str, ...]
    """Values that no later step reads."""


class Trainable(nn.Module):
    """An ONNX graph as a torch module.

    Float initializers that the operators learn (weights, biases, norm scales, embeddings) become
    parameters, every other tensor a buffer, all under their own names: ``layer1.0.weight`` is both
    the initializer and the key in ``state_dict()``. Masks, tables of positions, epsilons and shapes
    stay frozen. Floats of 16 bits are computed in 32, and written back in 16. In training mode a
    BatchNormalization works with the statistics of the batch and updates its own, with torch's momentum
    ``1 - momentum`` of the node; Dropout drops.

    Args:
        model: the graph, at opset 11 or newer. Its tensors are copied.
        outputs: names of the values that `forward` returns; by default the graph's outputs. Nodes
            that none of them needs are left out.
        trained: names of the initializers that learn; by default the operators tell.

    Raises:
        ModelError: a node cannot run in torch: control flow, a custom operator, an attribute or an
            element type that the operator table does not know. The message names the node.
    """

    def __init__(
        self,
        model: ir.Model,
        outputs: Iterable[str] | None = None,
        trained: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        graph = model.graph
        self.input_names = [value.name or "" for value in graph.inputs if not value.is_initializer()]
        self.output_names = list(outputs or [value.name or "" for value in graph.outputs])
        needed = _needed(graph, self.output_names)
        self._steps = _steps(model, needed, self.output_names)
        self._constants: dict[str, Host | float | list[float]] = {}
        self._places: dict[str, tuple[dict[str, Any], str]] = {}
        learnt = trained_initializers(model) if trained is None else trained
        only_host = _read_on_host_only(self._steps)
        for name, value in _constants(graph, needed):
            self._adopt(name, value, name in learnt, name in only_host)

    def _adopt(self, name: str, value: ir.TensorProtocol, trains: bool, only_host: bool) -> None:
        """Make a parameter, a buffer or a host value of one tensor."""
        array = value.numpy()
        whole = array.dtype == np.int64 and array.size <= LONGEST
        number = array.dtype in (np.int64, np.float32) and only_host and not trains
        if array.ndim <= 1 and (whole or number):
            self._constants[name] = array.tolist()
            return
        try:
            tensor = to_torch(value)
        except NotImplementedError as error:
            raise ModelError(f"initializer {name!r}: {error}") from error
        owner, leaf = self._place(name)
        if trains:
            owner.register_parameter(leaf, nn.Parameter(tensor))
            self._places[name] = (owner._parameters, leaf)
        else:
            owner.register_buffer(leaf, tensor)
            self._places[name] = (owner._buffers, leaf)

    def _place(self, name: str) -> tuple[nn.Module, str]:
        """Return where a tensor is registered: dots are nested modules, as in the module it came from."""
        owner: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            if part not in owner._modules and (not part or hasattr(owner, part)):
                return self, f"initializer {name.replace('.', '/')}"
            owner = owner._modules.get(part) or _added(owner, part)
        if not leaf or hasattr(owner, leaf):
            return self, f"initializer {name.replace('.', '/')}"
        return owner, leaf

    def weights(self) -> dict[str, Tensor]:
        """Return every parameter and buffer by the name of its initializer."""
        return {name: place[leaf] for name, (place, leaf) in self._places.items()}

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """Return the parameters alone, by the name of their initializer."""
        return {name: weight for name, weight in self.weights().items() if isinstance(weight, nn.Parameter)}

    def forward(self, feeds: Mapping[str, Tensor] | None = None, /, **named: Tensor) -> tuple[Tensor, ...]:
        """Run the graph.

        Args:
            feeds: input tensors by name, as a mapping or as keywords.

        Returns:
            The outputs, in the order of `output_names`.

        Raises:
            ModelError: an input is missing or unknown, or a node failed; the message names it.
        """
        values: dict[str, Any] = {**(feeds or {}), **named}
        self._check(values)
        halves = [name for name, value in values.items() if value.dtype in (torch.float16, torch.bfloat16)]
        values.update((name, values[name].float()) for name in halves)
        device = next((value.device for value in values.values()), torch.device("cpu"))
        values.update(self._constants)
        for name, (place, leaf) in self._places.items():
            values[name] = place[leaf]
        for step in self._steps:
            try:
                results = self._run(step, [values[name] if name else None for name in step.inputs], device)
            except (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError) as error:
                raise ModelError(f"{step.label} failed: {error}") from error
            for name, result in zip(step.outputs, results, strict=False):
                values[name] = result
            for name in step.spent:
                del values[name]
        return tuple(_tensor(values[name], device) for name in self.output_names)

    def _check(self, feeds: Mapping[str, Any]) -> None:
        for name in feeds:
            if name not in self.input_names:
                raise ModelError(f"the model has no input {name!r}{did_you_mean(name, self.input_names)}")
        missing = [name for name in self.input_names if name not in feeds]
        if missing:
            raise ModelError(f"input {missing[0]!r} is missing")

    def _run(self, step: _Step, inputs: list[Any], device: torch.device) -> tuple[Any, ...]:
        if step.host is not None and not any(isinstance(value, Tensor) for value in inputs):
            result = step.host(*inputs, **step.attributes)
            if result is not NotImplemented:
                return (result,)
        arguments = [
            _argument(value, step.operator.role(place), device) for place, value in enumerate(inputs)
        ]
        supplied = {"training": self.training, "outputs": len(step.outputs), "device": device}
        extra = {name: supplied[name] for name in step.operator.supplied}
        result = step.operator.function(*arguments, **step.attributes, **extra)
        return result if isinstance(result, tuple) else (result,)

    def write_back(self, model: ir.Model) -> list[str]:
        """Put the trained weights, and the statistics of normalizations, into a model by name.

        Args:
            model: the model this module was made of, or one with the same initializers.

        Returns:
            Names of the initializers that were replaced.

        Raises:
            ModelError: the model has no such initializer, or one of another shape.
        """
        written = []
        statistics = {
            name
            for step in self._steps
            for place, name in enumerate(step.inputs)
            if step.operator.role(place) is Role.STATE
        }
        for name, tensor in self.weights().items():
            if not isinstance(tensor, nn.Parameter) and name not in statistics:
                continue
            value = model.graph.initializers.get(name)
            old = value.const_value if value is not None else None
            if value is None or old is None or tuple(old.shape.numpy()) != tuple(tensor.shape):
                raise ModelError(f"initializer {name!r} of shape {list(tensor.shape)} is not in the model")
            edit.set_initializer(value, from_torch(tensor, old.dtype, name))
            written.append(name)
        return written


def to_torch(value: ir.TensorProtocol) -> Tensor:
    """Return a copy of an ONNX tensor; integers of 4 bits and below are held in 8, floats of 16 in 32.

    Raises:
        NotImplementedError: torch cannot compute with its element type.
    """
    if value.dtype in _NARROW:
        return torch.from_numpy(value.numpy().astype(_NARROW[value.dtype]))
    dtype = torch_type(value.dtype)
    content = value.numpy().astype(np.float32) if value.dtype in HALVES else value.numpy()
    return torch.from_numpy(np.array(content, order="C")).to(dtype)


def from_torch(tensor: Tensor, dtype: ir.DataType, name: str) -> ir.TensorProtocol:
    """Return a torch tensor as an ONNX tensor of a float type."""
    array = tensor.detach().cpu().to(torch.float64 if dtype == ir.DataType.DOUBLE else torch.float32)
    return ir.tensor(array.numpy().astype(dtype.numpy()), name=name)


def _added(owner: nn.Module, name: str) -> nn.Module:
    child = nn.Module()
    owner.add_module(name, child)
    return child


def _argument(value: Any, role: Role | None, device: torch.device) -> Any:
    """Bring a value to where the operator reads it: the host or a tensor."""
    if role is Role.EITHER or value is None:
        return value
    if role is Role.HOST:
        return value.tolist() if isinstance(value, Tensor) else value
    return _tensor(value, device)


def _tensor(value: Any, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value
    first = value[0] if isinstance(value, list) and value else value
    dtype = (
        torch.bool if isinstance(first, bool) else torch.float32 if isinstance(first, float) else torch.int64
    )
    return torch.tensor(value, dtype=dtype, device=device)


def _needed(graph: ir.Graph, outputs: Iterable[str]) -> list[ir.Node]:
    """Return the nodes that some outputs depend on, in order.

    Raises:
        ModelError: the graph has no value of a wanted name.
    """
    producers = {value.name: node for node in graph for value in node.outputs if value.name}
    known = producers.keys() | graph.initializers.keys() | {value.name for value in graph.inputs}
    wanted = list(outputs)
    for name in wanted:
        if name not in known:
            raise ModelError(f"the graph has no value {name!r}{did_you_mean(name, filter(None, known))}")
    found: set[ir.Node] = set()
    stack = [producers[name] for name in wanted if name in producers]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [producers[value.name] for value in node.inputs if value and value.name in producers]
    return [node for node in graph if node in found]


def _constants(graph: ir.Graph, nodes: list[ir.Node]) -> Iterable[tuple[str, ir.TensorProtocol]]:
    """Yield the tensors that nodes read from the graph itself, by name."""
    seen: set[str] = set()
    read = [value for node in nodes for value in node.inputs if value is not None]
    for value in [*read, *graph.outputs]:
        name = value.name or ""
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None and name not in seen:
            seen.add(name)
            yield name, tensor


def _steps(model: ir.Model, nodes: list[ir.Node], kept: list[str]) -> list[_Step]:
    opsets = model.opset_imports
    if opsets.get("", OLDEST_OPSET) < OLDEST_OPSET:
        raise ModelError(
            f"the model is of opset {opsets['']}; convert it to {OLDEST_OPSET} or newer to train it"
        )
    steps: list[_Step] = []
    alive = set(kept)
    # Backwards: the first reader met is the last to run, and the value is freed after it.
    for node in reversed(nodes):
        if node.op_type == "Constant" and node.domain == "":
            continue
        inputs = tuple((value.name or "") if value is not None else "" for value in node.inputs)
        outputs = tuple(value.name or "" for value in node.outputs)
        read = {name for name in inputs if name}
        spent = tuple(sorted((read | {name for name in outputs if name}) - alive))
        alive |= read
        steps.append(_step(node, opsets.get(node.domain, 1), inputs, outputs, spent))
    return steps[::-1]


def _step(
    node: ir.Node, opset: int, inputs: tuple[str, ...], outputs: tuple[str, ...], spent: tuple[str, ...]
) -> _Step:
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    label = f"node {node.name or outputs[0]!r} ({kind})"
    operator = lookup(node.domain, node.op_type, opset)
    if operator is None:
        raise ModelError(f"{label} cannot be trained: {_why_unknown(node)}")
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    unknown = sorted(attributes.keys() - operator.attributes)
    if unknown:
        raise ModelError(f"{label} cannot be trained: attribute {unknown[0]!r} is not supported")
    if len(inputs) > len(operator.roles) and not operator.variadic:
        raise ModelError(f"{label} cannot be trained: input {len(operator.roles)} is not supported")
    place = _TYPE_SETTERS.get(node.op_type, len(inputs))
    setter = node.inputs[place] if place < len(inputs) else None
    if setter is not None and setter.dtype in _NARROW:
        raise ModelError(f"{label} cannot be trained: torch has no type {setter.dtype.name}")
    host = HOST.get(node.op_type) if node.domain == "" else None
    return _Step(label, operator, host, inputs, outputs, attributes, spent)


def _why_unknown(node: ir.Node) -> str:
    """Tell why the table has no function for a node, and what to do."""
    if edit.bodies(node):
        return "torch does not run the graphs inside of it; leave out passes that train or read gradients"
    return (
        "no torch function computes it; leave out passes that train or read gradients, or write the function "
        "in compress/trainable/operators, as CONTRIBUTING.md shows under 'Add an operator'"
    )


def _read_on_host_only(steps: list[_Step]) -> set[str]:
    """Return the values that no step reads as a tensor."""
    host: set[str] = set()
    device: set[str] = set()
    for step in steps:
        for place, name in enumerate(step.inputs):
            (host if step.operator.role(place) in (Role.HOST, Role.EITHER) else device).add(name)
    return host - device
