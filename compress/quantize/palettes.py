"""Weights as codes of codebook entries: which weights share a codebook, and the nodes that look them up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compress.changes import Change, Reason
from compress.graph import edit
from compress.graph.edit import add_initializer
from compress.graph.layers import Layer
from compress.graph.linear import from_matrix, groups, in_type, linear_layers, matrix
from compress.graph.moments import mean_squares
from compress.numerics.codebook import Palette, palettize
from compress.numerics.formats import CodebookFormat
from compress.quantize.plans import blame, chosen_weights

if TYPE_CHECKING:
    from compress.model import Model

SHIFTS = np.array([0, 2, 4, 6], np.uint8)
"""Positions of the four two-bit codes of a byte."""


@dataclass(frozen=True, slots=True)
class CodebookPlan:
    """How one weight is laid out for codebooks.

    Attributes:
        readers: the layers that read it.
        format: its codebooks. Their channels divide those of the weight, and the dimensions divide the
            number of weights that share a codebook.
    """

    readers: tuple[Layer, ...]
    format: CodebookFormat

    @classmethod
    def of(cls, readers: Sequence[Layer], wanted: CodebookFormat) -> CodebookPlan:
        """Return the layout nearest to `wanted`: numbers that do not divide the weight are lowered."""
        layer, channels = readers[0], wanted.channels
        shape, axis = layer.array.shape, layer.out_axis
        if channels is not None and layer.in_axis is not None:
            channels = _divisor(shape[axis], channels)
            together = channels * layer.array.size // shape[axis]
        else:
            channels, together = None, shape[-1]
        entries = min(wanted.entries, max(layer.array.size, 2))
        return cls(tuple(readers), CodebookFormat(entries, _divisor(together, wanted.dimensions), channels))

    @property
    def layer(self) -> Layer:
        """The first reader."""
        return self.readers[0]

    @property
    def is_table(self) -> bool:
        """Whether the weight is an embedding table that nothing but its readers reads."""
        nodes = {reader.node for reader in self.readers}
        looked_up = all(
            reader.in_axis is None and (ids := reader.node.inputs[1]) is not None and ids.shape is not None
            for reader in self.readers
        )
        return looked_up and all(use.node in nodes for use in self.layer.weight.uses())

    def rows(self, weight: Tensor) -> Tensor:
        """Return a weight, or a tensor of its shape, as [codebooks, elements]."""
        if self.format.channels is None:
            return weight.reshape(1, -1)
        moved = weight.movedim(self.layer.out_axis, 0)
        return moved.reshape(len(moved) // self.format.channels, -1)

    def solve(self, mean_square: Tensor | None) -> Palette:
        """Find codebooks; the mean square of each of the layer's input features weighs its errors.

        Raises:
            PassError: the weight is not finite; the message names the layer.
        """
        weight = self.layer.array
        importance = None
        if mean_square is not None:
            features = mean_square.numpy()[None, :, None]
            spread = from_matrix(self.layer, np.broadcast_to(features, matrix(self.layer, weight).shape))
            importance = self.rows(torch.from_numpy(spread))
        try:
            return palettize(self.rows(torch.from_numpy(weight.copy())), self.format, importance)
        except ValueError as error:
            raise blame(self.layer, error) from error


def _divisor(number: int, wanted: int) -> int:
    return next(size for size in range(min(wanted, number), 0, -1) if number % size == 0)


def store_palettes(
    model: Model, chosen: Callable[..., bool], wanted: CodebookFormat, *, decoded: bool
) -> list[Change]:
    """Replace the weights of all chosen layers by codes and codebooks, in place; return a change per weight.

    With calibration data, weights that meet large inputs count more.

    Args:
        model: the model; changed in place.
        chosen: called with the names of a layer's node and weight.
        wanted: the format of the codebooks; see `CodebookPlan.of` for weights that it does not divide.
        decoded: look entries up at every run, instead of once as the model is loaded.

    Raises:
        PassError: a weight is not finite; the message names the layer.
        DataError: calibration data are not finite.
    """
    found, changes = chosen_weights(model.graph, lambda layer: chosen(*layer.names))
    planned = [CodebookPlan.of(readers, wanted) for readers in found]
    plain = {layer.weight.name for layer in linear_layers(model.graph) if groups(layer) == 1}
    measured = [plan.layer for plan in planned if plan.layer.weight.name in plain]
    squares = mean_squares(model.ir, model.batches(), measured) if model.calibration and measured else {}
    for plan in planned:
        own = squares.get(plan.layer.name) if plan.layer.weight.name in plain else None
        changes.append(_store(model.graph, plan, plan.solve(own), decoded=decoded))
    return changes


def _store(graph: ir.Graph, plan: CodebookPlan, palette: Palette, *, decoded: bool) -> Change:
    """Replace a weight by codes and codebooks.

    Args:
        graph: the graph; changed in place.
        plan: how the weight is laid out.
        palette: the codes.
        decoded: look entries up at every run, instead of as the model is loaded.
    """
    layer, before = plan.layer, plan.layer.array
    restored = palette.restore().numpy()
    error = float(np.linalg.norm(restored - plan.rows(torch.from_numpy(before.copy())).numpy()))
    entries = plan.format.entries
    bits = plan.format.code_bits
    codes, book = palette.codes.numpy(), in_type(palette.codebook.numpy(), layer.dtype)
    if bits == 2 and codes.shape[1] % len(SHIFTS):
        bits = 4
    size = math.ceil(codes.size * bits / 8) + book.nbytes
    if size >= layer.nbytes:
        return Change(
            layer.name,
            skipped=Reason.SMALL.because(
                f"codes and codebooks of {entries} entries would take more bytes than the weight"
            ),
        )
    if plan.is_table:
        bits = max(bits, 4)
        size = math.ceil(codes.size * bits / 8) + book.nbytes
        _look_up_rows(graph, plan, codes, book, bits)
        form = "looked up at every run"
    else:
        _look_up(graph, plan, codes, book, bits, decoded=decoded)
        form = "looked up at every run" if decoded else "float once loaded"
    return Change(
        layer.name,
        f"{plan.format}, codes of {bits} bits, {form}",
        bytes_before=layer.nbytes,
        bytes_after=size,
        error=error / (float(np.linalg.norm(before)) or 1.0),
    )


class _Chain:
    """Nodes in a row, each of which reads the output of the one before."""

    def __init__(self, name: str, value: ir.Value) -> None:
        self.name, self.value, self.nodes = name, value, list[ir.Node]()

    def then(self, op_type: str, *others: ir.Value, **attributes: int | str | list[int]) -> None:
        """Append a node that reads the last output, and `others`."""
        self._append(op_type, [self.value, *others], attributes)

    def from_book(self, book: ir.Value) -> None:
        """Append the lookup of entries [..., dimensions] of `book`."""
        self._append("Gather", [book, self.value], {})

    def _append(
        self, op_type: str, inputs: list[ir.Value], attributes: dict[str, int | str | list[int]]
    ) -> None:
        node = ir.node(op_type, inputs, attributes, name=f"{self.name}.{op_type.lower()}{len(self.nodes)}")
        node.outputs[0].name = f"{node.name}.output"
        self.nodes.append(node)
        self.value = node.outputs[0]


def _stored(graph: ir.Graph, name: str, codes: np.ndarray, bits: int) -> ir.Value:
    return add_initializer(graph, f"{name}.codes", codes.astype(ml_dtypes.uint4) if bits == 4 else codes)


def _look_up(
    graph: ir.Graph, plan: CodebookPlan, codes: np.ndarray, book: np.ndarray, bits: int, *, decoded: bool
) -> None:
    """Restore the weight from its codes before all other nodes."""
    weight, name = plan.layer.weight, plan.layer.weight.name or ""
    books, entries, dimensions = book.shape
    packed = codes
    if bits == 2:
        fours = codes.reshape(books, -1, len(SHIFTS)) << SHIFTS
        packed = np.bitwise_or.reduce(fours, axis=-1, keepdims=True)
    chain = _Chain(name, _stored(graph, name, packed, bits))
    if bits == 2:
        chain.then("BitShift", add_initializer(graph, f"{name}.shifts", SHIFTS), direction="RIGHT")
        chain.then("BitwiseAnd", add_initializer(graph, f"{name}.mask", np.array(3, np.uint8)))
    if decoded:  # the runtime does not fold this node, nor what depends on it
        chain.then("DequantizeLinear", add_initializer(graph, f"{name}.one", np.array(1, np.float32)))
    chain.then("Cast", to=ir.DataType.INT32)
    if books > 1:
        first = (np.arange(books, dtype=np.int32) * entries).reshape(-1, *[1] * (packed.ndim - 1))
        chain.then("Add", add_initializer(graph, f"{name}.books", first))
    chain.from_book(add_initializer(graph, f"{name}.codebook", book.reshape(-1, dimensions)))
    shape = list(plan.layer.array.shape)
    axis = 0 if plan.format.channels is None else plan.layer.out_axis
    moved = [shape[axis], *shape[:axis], *shape[axis + 1 :]]
    chain.then("Reshape", add_initializer(graph, f"{name}.shape", np.array(moved, np.int64)))
    if axis:
        chain.then("Transpose", perm=[*range(1, axis + 1), 0, *range(axis + 1, len(shape))])
    chain.value.name = f"{name}.restored"
    edit.insert_first(graph, *chain.nodes)
    edit.replace_value(weight, chain.value)


def _look_up_rows(
    graph: ir.Graph, plan: CodebookPlan, codes: np.ndarray, book: np.ndarray, bits: int
) -> None:
    """Look up the codes of rows and then their entries, so that the table is never restored as a whole."""
    name = plan.layer.weight.name or ""
    table = codes.reshape(len(plan.layer.array), -1)
    entries = add_initializer(graph, f"{name}.codebook", book.reshape(-1, book.shape[2]))
    stored = _stored(graph, name, table, bits)
    if bits == 4:  # the runtime's Gather takes no type smaller than bytes; the Cast is folded at load time
        cast = ir.node("Cast", [stored], {"to": ir.DataType.UINT8}, name=f"{name}.bytes")
        edit.insert_first(graph, cast)
        stored = cast.outputs[0]
    for reader in plan.readers:
        node, ids = reader.node, reader.node.inputs[1]
        assert ids is not None
        assert ids.shape is not None
        chain = _Chain(f"{node.name}.{name}", stored)
        chain.then("Gather", ids)
        chain.then("Cast", to=ir.DataType.INT32)
        chain.from_book(entries)
        rows = np.array([0] * len(ids.shape) + [-1], np.int64)
        chain.then("Reshape", add_initializer(graph, f"{name}.row", rows))
        edit.replace_node(node, *chain.nodes)
