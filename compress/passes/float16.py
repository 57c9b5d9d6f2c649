"""Floats of 16 bits and of 8: weights, or the whole computation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from compress.model import Model

LARGEST = {"float16": 65504.0, "bfloat16": 3.3895e38, "float8": 448.0}
"""Largest finite value of each type; float8 is E4M3 without infinities, of the OCP specification."""


class Float16(Pass, name="float16"):
    """Store weights in 16-bit floating point: half the size at almost no loss.

    With ``compute: float32`` every weight is widened as it is read, which any runtime can do; the
    file is half as large and runs no faster. ``compute: float16`` converts the arithmetic as well,
    for GPUs and accelerators; inputs and outputs stay float32. CPUs run that slower than float32.
    bfloat16 holds the range of float32 with three bits less of precision than float16. float8 (E4M3, one
    scale a weight) is a quarter of the size and loses three times as much as the integers of
    `int8-weights`, which are as small: it is for comparison, and for accelerators that want it.
    ONNX Runtime widens all of them once, as it loads the model.

    Example: ``float16: {compute: float16}``
    """

    quantizes: ClassVar[bool] = True

    weights: Literal["float16", "bfloat16", "float8"] = "float16"
    """What weights are stored in, for arithmetic in float32."""
    compute: Literal["float32", "float16"] = "float32"
    """The precision of the arithmetic."""

    @model_validator(mode="after")
    def _one_type(self) -> Self:
        if self.compute == "float16" and self.weights != "float16":
            raise ValueError("arithmetic in float16 reads weights in float16; leave 'weights' out")
        return self

    def apply(self, model: Model) -> list[Change]:
        """Convert every selected weight, or the graph."""
        if self.compute == "float16":
            return [self._convert_graph(model)]
        return [self._store(model.graph, weight) for weight in list(model.graph.initializers.values())]

    def _store(self, graph: ir.Graph, weight: ir.Value) -> Change:
        import numpy as np
        import onnx_ir as ir

        from compress.graph.layers import array, is_float_weight
        from compress.quantize.nodes import widen_weight

        name = weight.name or ""
        if not self.selects(name, *(node.name for node in weight.consumers())):
            return Change(name, skipped="not selected")
        if not is_float_weight(weight, rank=1):
            return Change(name, skipped="not float32, a single number, or an output of the graph")
        before = array(weight)
        kind, scale = self._type(), None
        if self.weights == "float8":
            highest = float(np.abs(before).max()) / LARGEST[self.weights]
            scale = np.float32(max(highest, float(np.finfo(np.float32).tiny)))
        with np.errstate(over="ignore"):
            after = (before if scale is None else before / scale).astype(kind)
        if not np.isfinite(after.astype(np.float32)).all():
            return Change(name, skipped=f"holds values beyond {LARGEST[self.weights]:g}")
        widen_weight(weight, ir.tensor(after), scale)
        restored = after.astype(np.float32) * (1 if scale is None else scale)
        stored = after.nbytes + (0 if scale is None else scale.nbytes)
        return Change(name, self.weights, before.nbytes, stored, _relative_error(before, restored))

    def _type(self) -> np.dtype[Any]:
        import ml_dtypes
        import numpy as np

        types: dict[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "float8": ml_dtypes.float8_e4m3fn}
        kind: np.dtype[Any] = np.dtype(types.get(self.weights, np.float16))
        return kind

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
    return float(np.linalg.norm(before - after)) / norm if norm else 0.0
