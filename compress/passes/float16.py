"""Half precision: weights, or the whole computation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar, Literal

from compress.passes.base import Change, Pass

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from compress.model import Model


class Float16(Pass, name="float16"):
    """Store weights in 16-bit floating point: half the size at almost no loss.

    With ``compute: float32`` every weight is widened as it is read, which any runtime can do; the
    file is half as large and runs no faster. ``compute: float16`` converts the arithmetic as well,
    for GPUs and accelerators; inputs and outputs stay float32. CPUs run that slower than float32.

    Example: ``float16: {compute: float16}``
    """

    quantizes: ClassVar[bool] = True

    compute: Literal["float32", "float16"] = "float32"
    """The precision of the arithmetic."""

    def apply(self, model: Model) -> list[Change]:
        """Convert every selected weight, or the graph."""
        if self.compute == "float16":
            return [self._convert_graph(model)]
        return [self._store(model.graph, weight) for weight in list(model.graph.initializers.values())]

    def _store(self, graph: ir.Graph, weight: ir.Value) -> Change:
        import numpy as np
        import onnx_ir as ir

        from compress.graph.emit import widen_weight
        from compress.graph.layers import array, is_float_weight

        name = weight.name or ""
        if not self.selects(name, *(node.name for node in weight.consumers())):
            return Change(name, skipped="not selected")
        if not is_float_weight(weight, rank=1):
            return Change(name, skipped="not float32, a single number, or an output of the graph")
        before = array(weight)
        with np.errstate(over="ignore"):
            after = before.astype(np.float16)
        if not np.isfinite(after).all():
            return Change(name, skipped=f"holds values beyond {np.finfo(np.float16).max:g}")
        widen_weight(graph, weight, ir.tensor(after))
        return Change(name, "float16", before.nbytes, after.nbytes, _relative_error(before, after))

    def _convert_graph(self, model: Model) -> Change:
        import onnx_ir as ir
        from onnx_ir.passes.common import TopologicalSortPass
        from onnxruntime.transformers.float16 import convert_float_to_float16

        left = [node.name for node in model.graph if not self.selects(node.name) or _overflows(node)]
        if len(left) == len(model.graph):
            return Change("graph", skipped="not selected, or weights beyond float16")
        if any(value.is_initializer() for value in model.graph.outputs):
            return Change("graph", skipped="a weight is an output of the graph")
        before = model.weight_bytes
        with warnings.catch_warnings():  # of values that vanish
            warnings.simplefilter("ignore", UserWarning)
            converted = convert_float_to_float16(
                ir.to_proto(model.ir), keep_io_types=True, node_block_list=left
            )
        model.ir = TopologicalSortPass()(ir.from_proto(converted)).model
        return Change("graph", "computes in float16", before, model.weight_bytes)


def _overflows(node: ir.Node) -> bool:
    """Tell whether a node reads float32 weights that float16 does not hold."""
    import numpy as np

    from compress.graph.layers import array, is_float_weight

    return any(
        value is not None
        and is_float_weight(value, rank=0)
        and bool((np.abs(array(value)) > np.finfo(np.float16).max).any())
        for value in node.inputs
    )


def _relative_error(before: np.ndarray, after: np.ndarray) -> float:
    import numpy as np

    norm = float(np.linalg.norm(before))
    return float(np.linalg.norm(before - after.astype(np.float32))) / norm if norm else 0.0
