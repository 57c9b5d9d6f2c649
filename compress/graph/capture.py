"""Activations of a graph, computed by ONNX Runtime one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compress.errors import DataError
from compress.graph.session import session
from compress.graph.weights import census
from compress.progress import track

if TYPE_CHECKING:
    from compress.data import Feeds


def activations(
    model: ir.Model, names: Iterable[str], batches: Iterable[Feeds], *, optimize: bool = True
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the named values of each batch, floats as float32; memory holds one batch's at a time.

    Args:
        model: the model to run; it is not changed.
        names: values of its graph: inputs, initializers, or outputs of nodes.
        batches: feeds by input name.
        optimize: whether the runtime may rewrite the graph, as it does by default.
    """
    wanted = list(dict.fromkeys(names))
    probe = model.clone()
    inputs = {value.name for value in probe.graph.inputs}
    stored = {
        name: content.numpy()
        for name in wanted
        if name not in inputs and (content := model.graph.initializers.get_tensor(name)) is not None
    }
    computed = [name for name in wanted if name not in inputs and name not in stored]
    probe.graph.outputs[:] = [_value(probe.graph, name) for name in computed]
    RemoveUnusedNodesPass()(probe)  # the runtime would compute what nothing reads
    run = session(probe, optimize=optimize, plans_memory=False).run if computed else None

    def values(feeds: Feeds) -> dict[str, np.ndarray]:
        outputs = run(None, feeds) if run is not None else []
        found = stored | dict(zip(computed, outputs, strict=True))
        return {name: as_float32(found[name] if name in found else feeds[name]) for name in wanted}

    for feeds in batches:
        yield values(feeds)  # no name here keeps a batch's values while the next one runs


def observe(
    model: ir.Model,
    names: Iterable[str],
    batches: Iterable[Feeds],
    update: Callable[[str, np.ndarray], None],
    *,
    progress: str = "",
) -> None:
    """Pass every named activation of the calibration data to ``update(name, array)``.

    Args:
        model: the model to run; it is not changed.
        names: values of its graph.
        batches: feeds by input name.
        update: takes one array into a statistic.
        progress: what the progress bar on stderr says; none if empty.

    Raises:
        DataError: an activation is not finite; the message names weights that are not.
    """
    for number, values in enumerate(track(activations(model, names, batches), progress)):
        for name, array in values.items():
            try:
                update(name, array)
            except ValueError as error:
                raise DataError(
                    f"calibration data, batch {number}: activation {name!r}: {error}{_cause(model)}"
                ) from error
        values.clear()  # before the next batch runs


def _cause(model: ir.Model) -> str:
    """Return which weights may be why an activation is not finite: the data are not always to blame."""
    broken = sorted({weight.name for weight in census(model) if not weight.is_finite})
    return f"; weights that hold NaN or infinite values: {', '.join(broken[:5])}" if broken else ""


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return floats of any width as float32, and other values as they are."""
    is_float = isinstance(values, np.ndarray) and values.dtype.kind == "f"
    return values.astype(np.float32, copy=False) if is_float else values


def _value(graph: ir.Graph, name: str) -> ir.Value:
    for node in graph:
        for output in node.outputs:
            if output.name == name:
                return output
    raise KeyError(f"the graph has no value {name!r}")
