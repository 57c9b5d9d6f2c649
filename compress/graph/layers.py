"""Which nodes hold weights, and along which axes the weights are laid out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.graph import facts

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
"""Element types that operators compute in."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with a constant weight.

    Attributes:
        node: the node.
        weight: the initializer.
        index: the weight's place among the node's inputs.
        out_axis: the weight's axis of output channels (rows of an embedding).
        in_axis: its axis of input channels, over which products are summed; None for an embedding.
    """

    node: ir.Node
    weight: ir.Value
    index: int
    out_axis: int
    in_axis: int | None

    @property
    def operator(self) -> facts.Operator:
        """What the node's operator is."""
        return facts.of(self.node)

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.node.name or ""

    @property
    def names(self) -> tuple[str, str]:
        """Names a user may know the layer by: the node's and the weight's."""
        return self.name, self.weight.name or ""

    @property
    def array(self) -> np.ndarray:
        """The weight as a numpy array, float32 whatever it is stored in."""
        return array(self.weight)

    @property
    def is_finite(self) -> bool:
        """Whether no number of the weight is NaN or infinite, so that it has a range."""
        content = self.array
        return bool(np.isfinite(content.min()) and np.isfinite(content.max()))

    @property
    def dtype(self) -> ir.DataType:
        """The type that the weight is stored in, and that the node computes in."""
        return self.weight.dtype or ir.DataType.FLOAT

    @property
    def nbytes(self) -> int:
        """Bytes of the weight as stored."""
        return nbytes(self.weight)


class StoredTensor(ir.LazyTensor):
    """A tensor that is stored in another float type than it is read in.

    Attributes:
        stored: the tensor as stored.
    """

    def __init__(self, stored: ir.TensorProtocol, dtype: ir.DataType) -> None:
        super().__init__(self._read, dtype, ir.Shape(stored.shape.numpy()), name=stored.name)
        self.stored = stored

    def _read(self) -> ir.TensorProtocol:
        return ir.tensor(self.stored.numpy().astype(self.dtype.numpy()))


def array(value: ir.Value) -> np.ndarray:
    """Return the content of an initializer; floats of any width as float32."""
    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"{value.name!r} is not an initializer")
    content = tensor.numpy()
    return content.astype(np.float32, copy=False) if tensor.dtype in FLOATS else content


def stored_type(value: ir.Value) -> str:
    """Return the name of the type that an initializer is stored in."""
    tensor = value.const_value
    return str(tensor.stored.dtype if isinstance(tensor, StoredTensor) else value.dtype).lower()


def nbytes(value: ir.Value) -> int:
    """Return the bytes of an initializer as stored."""
    tensor = value.const_value
    if tensor is None:
        return 0
    return tensor.stored.nbytes if isinstance(tensor, StoredTensor) else tensor.nbytes


def is_float_weight(value: ir.Value | None, *, rank: int = 2) -> bool:
    """Tell whether a value is a float initializer of at least `rank` axes, none of them empty."""
    return (
        value is not None
        and value.const_value is not None
        and value.dtype in FLOATS
        and len(value.const_value.shape) >= rank
        and value.const_value.size > 0
        and not value.is_graph_output()
    )


def layers(graph: ir.Graph) -> Iterator[Layer]:
    """Yield every node with a float weight, in the graph's order."""
    for node in graph:
        yield from layers_of(node)


def layers_of(node: ir.Node) -> Iterator[Layer]:
    """Yield the weights of one node: none, one, or two for a recurrent one (input and hidden weights).

    ``MatMul(x, Transpose(w))`` counts as a layer with the weight `w`, since a tied embedding is kept
    in that form.
    """
    if node.domain != "":
        return
    for place in facts.weights(node):
        out_axis, in_axis = place.outputs, place.inputs
        weight = node.inputs[place.index] if place.index < len(node.inputs) else None
        if node.op_type == "MatMul" and weight is not None:
            turned = weight.producer()
            if turned is not None and turned.op_type == "Transpose":
                weight, out_axis, in_axis = turned.inputs[0], 0, 1
        if weight is not None and is_float_weight(weight):
            if node.op_type in ("MatMul", "Gather") and array(weight).ndim != 2:
                continue
            yield Layer(node, weight, place.index, out_axis, in_axis)
