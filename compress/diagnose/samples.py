"""Random inputs of one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from compress.data import Feeds
from compress.graph.layers import array
from compress.graph.shapes import bind


def random_feeds(model: ir.Model, shapes: Mapping[str, Sequence[int] | int] | None = None) -> Feeds:
    """Return one sample: floats are normally distributed, integers valid indices of the tables they read.

    Integers that do not index a table directly, such as masks, are 0 or 1.

    Args:
        model: the graph.
        shapes: shape by input name, or size by the name of a symbolic dimension; other dimensions that
            the model leaves open are bound as in `compress.estimate`.

    Raises:
        ModelError: the rank of an input is unknown, or `shapes` do not fit the inputs.
    """
    rng = np.random.default_rng(0)
    readers = {value.name: value.consumers() for value in model.graph.inputs}
    feeds: Feeds = {}
    for name, info in bind(model, shapes or {}).items():
        if info.dtype.is_floating_point():
            feeds[name] = rng.standard_normal(info.shape).astype(info.dtype.numpy())
            continue
        tables = [node.inputs[0] for node in readers[name] if node.op_type == "Gather"]
        rows = [len(array(table)) for table in tables if table is not None and table.is_initializer()]
        feeds[name] = rng.integers(0, min(rows, default=2), info.shape).astype(info.dtype.numpy())
    return feeds
