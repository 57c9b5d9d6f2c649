"""Running a graph part by part, so that a layer can be changed before what follows it is computed."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from compress.data import Feeds
from compress.errors import PassError
from compress.graph.capture import as_float32
from compress.graph.edit import bodies
from compress.graph.session import session

TENSOR, SEQUENCE = "_", "."
"""What separates place and number in the name of a stored array: each sequence is stored part by part."""


class Walk:
    """Runs a graph part by part on all batches; every node runs once, with the weights that it has then.

    Values that later nodes read are kept in one file for each batch, so that memory holds one batch's.

    Args:
        model: the model. Weights of nodes that lie ahead may change between parts, its nodes may not.
        batches: feeds by input name.

    Raises:
        PassError: a value that is carried is neither a tensor nor a sequence of tensors.
    """

    def __init__(self, model: ir.Model, batches: Iterable[Feeds]) -> None:
        self._model = model
        self._nodes = list(model.graph)
        self._places = {node.name: place for place, node in enumerate(self._nodes)}
        self._values = {value.name: value for node in self._nodes for value in node.outputs}
        self._values |= {value.name: value for value in model.graph.inputs}
        self._constant = constants(model.graph)
        self._last = {value: place for place, node in enumerate(self._nodes) for value in reads(node)}
        self._folder = tempfile.TemporaryDirectory(prefix="compress-")
        self._position, self._batches = 0, 0
        self._live = [value for value in model.graph.inputs if not value.is_initializer()]
        for feeds in batches:
            self._write(self._batches, [feeds[value.name or ""] for value in self._live])
            self._batches += 1

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def advance(self, node: str) -> None:
        """Compute all that comes before the node of a name."""
        end = max(self._places[node], self._position)
        made = [value for each in self._nodes[self._position : end] for value in each.outputs]
        kept = [
            value
            for value in (*self._live, *made)
            if value not in self._constant and self._last.get(value, -1) >= end
        ]
        for batch, (carried, computed) in enumerate(self._run([v for v in kept if v not in self._live])):
            values = {**dict(zip(self._live, carried, strict=True)), **computed}
            self._write(batch, [values[value] for value in kept])
        self._position, self._live = end, kept

    def values(self, name: str) -> Iterator[np.ndarray]:
        """Yield a value of every batch, computed from what has come so far; floats as float32."""
        value = self._values[name]
        if value in self._live:
            place = self._live.index(value)
            for batch in range(self._batches):
                yield as_float32(self._read(batch, [place])[0])
        else:
            for _, computed in self._run([value]):
                yield as_float32(computed[value])

    def _run(
        self, wanted: Sequence[ir.Value]
    ) -> Iterator[tuple[list[np.ndarray], dict[ir.Value, np.ndarray]]]:
        """Yield the values that each batch carries, and those that are wanted besides."""
        run = None
        names = [value.name or "" for value in self._live]
        for batch in range(self._batches):
            carried = self._read(batch, range(len(self._live)))
            found = []
            if wanted:
                run = run or session(self._part(wanted, carried)).run
                found = run([value.name or "" for value in wanted], dict(zip(names, carried, strict=True)))
            yield carried, dict(zip(wanted, found, strict=True))

    def _part(self, wanted: Sequence[ir.Value], carried: Sequence[np.ndarray]) -> ir.Model:
        """Return the model that computes `wanted` from the carried values."""
        part = ir.convenience.extract(self._model.graph, self._live, wanted)
        for value, content in zip(part.inputs, carried, strict=True):
            first = content[0] if isinstance(content, list) and content else content
            if isinstance(first, np.ndarray):  # of an empty sequence the graph alone may know the type
                tensor = ir.TensorType(ir.DataType.from_numpy(first.dtype))
                value.type = ir.SequenceType(tensor) if isinstance(content, list) else tensor
                value.shape = None if isinstance(content, list) else ir.Shape([None] * first.ndim)
        return ir.Model(part, ir_version=self._model.ir_version)

    def _write(self, batch: int, values: Sequence[np.ndarray]) -> None:
        arrays: dict[str, Any] = {}
        for place, value in enumerate(values):
            parts = value if isinstance(value, list) else [value]
            if not all(isinstance(part, np.ndarray) for part in parts):
                raise PassError(
                    "values between its layers are neither tensors nor sequences of them; "
                    "choose a method that needs no calibration data"
                )
            separator = SEQUENCE if isinstance(value, list) else TENSOR
            for number, part in enumerate(parts):
                text = part.dtype == object
                arrays[f"{place}{separator}{number}"] = part.astype(str) if text else part
        np.savez(Path(self._folder.name, f"{batch}.npz"), **arrays)

    def _read(self, batch: int, places: Iterable[int]) -> list[Any]:
        found: list[Any] = []
        with np.load(Path(self._folder.name, f"{batch}.npz")) as stored:
            for place in places:
                if f"{place}{TENSOR}0" in stored:
                    found.append(_as_fed(stored[f"{place}{TENSOR}0"]))
                    continue
                names = (f"{place}{SEQUENCE}{number}" for number in itertools.count())
                found.append(
                    [_as_fed(stored[name]) for name in itertools.takewhile(stored.__contains__, names)]
                )
        return found


def _as_fed(stored: np.ndarray) -> np.ndarray:
    """Return a stored array as the runtime takes it: texts as objects."""
    return stored.astype(object) if stored.dtype.kind == "U" else stored


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that a node and the bodies inside it read."""
    yield from (value for value in node.inputs if value is not None)
    for body in bodies(node):
        yield from (value for inner in body.all_nodes() for value in inner.inputs if value is not None)


def constants(graph: ir.Graph) -> set[ir.Value]:
    """Return the values that are the same for every input."""
    constant = set(graph.initializers.values())
    for node in graph:
        if all(value in constant for value in reads(node)):
            constant.update(node.outputs)
    return constant
