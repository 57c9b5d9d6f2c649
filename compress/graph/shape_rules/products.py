"""Shapes of products, with weights packed, turned or in integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from compress.graph.shape_rules.call import Call, Outputs, Rule
from compress.graph.tensor_info import TensorInfo, standard

FLOAT = ir.DataType.FLOAT


def broadcast(*places: int, typed: int = 0) -> Rule:
    """Return the rule of an operator whose inputs at `places` are broadcast to one shape."""

    def rule(call: Call) -> Outputs:
        shape = np.broadcast_shapes(*(call[place].shape for place in places))
        return [TensorInfo(shape, call[typed].dtype)]

    return rule


def product(one: Sequence[int], other: Sequence[int], dtype: ir.DataType) -> Outputs:
    """Return the shape of a matrix product, with another type."""
    factors = [TensorInfo(tuple(shape), FLOAT) for shape in (one, other)]
    return [standard("MatMul", factors)._replace(dtype=dtype)]


def turned(shape: Sequence[int], *, batch: bool, last: bool) -> list[int]:
    """Return a factor's shape with its first axis moved before the last, or the last two swapped."""
    sizes = list(shape)
    if batch and len(sizes) > 2:
        sizes = [*sizes[1:-1], sizes[0], sizes[-1]]
    if last and len(sizes) > 1:
        sizes[-2:] = sizes[:-3:-1]
    return sizes


def fused_matmul(call: Call) -> Outputs:
    """FusedMatMul: axes of the factors change places first."""
    factors = [
        turned(
            call[place].shape, batch=bool(call.int(f"transBatch{name}")), last=bool(call.int(f"trans{name}"))
        )
        for place, name in enumerate("AB")
    ]
    return product(factors[0], factors[1], call[0].dtype)


def packed_product(call: Call) -> Outputs:
    """MatMulNBits: attributes tell the shape of the weight."""
    return [call[0]._replace(shape=(*call[0].shape[:-1], call.int("N")))]


def packed_rows(call: Call) -> Outputs:
    """GatherBlockQuantized: rows of a table of codes; bytes hold several along the last axis."""
    data, indices, scales = call[0], call[1], call[2]
    axis = call.int("gather_axis") % len(data.shape)
    table = list(data.shape)
    if data.dtype is ir.DataType.UINT8:
        table[-1] *= 8 // call.int("bits", 4)
    return [TensorInfo((*table[:axis], *indices.shape, *table[axis + 1 :]), scales.dtype)]


def gemm(call: Call) -> Outputs:
    """FusedGemm: an activation changes nothing."""
    turns = [call.node.attributes[name] for name in ("transA", "transB") if name in call.node.attributes]
    return [standard("Gemm", [call.get(place) for place in range(3)], turns)]


def qgemm(call: Call) -> Outputs:
    """QGemm: floats if no zero point of the output is given."""
    one = turned(call[0].shape, batch=False, last=bool(call.int("transA")))
    other = turned(call[3].shape, batch=False, last=bool(call.int("transB")))
    zero_point = call.get(8)
    return product(one, other, zero_point.dtype if zero_point else FLOAT)


def quantized_lstm(call: Call) -> Outputs:
    """DynamicQuantizeLSTM: as an LSTM of ONNX."""
    tokens, batch, _ = call[0].shape
    bidirectional = call.node.attributes.get_string("direction", "forward") == "bidirectional"
    directions, hidden = 1 + bidirectional, call.int("hidden_size")
    last = TensorInfo((directions, batch, hidden), FLOAT)
    return [TensorInfo((tokens, directions, batch, hidden), FLOAT), last, last]
