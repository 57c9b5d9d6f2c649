"""Shapes of products with packed, transposed or integer weights."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from compress.graph.shape_rules.call import Call, Outputs
from compress.graph.tensor_info import TensorInfo, standard

FLOAT = ir.DataType.FLOAT


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
    found = standard("MatMul", [TensorInfo(tuple(shape), FLOAT) for shape in factors])
    return [found._replace(dtype=call[0].dtype)]


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


def quantized_lstm(call: Call) -> Outputs:
    """DynamicQuantizeLSTM: as an LSTM of ONNX."""
    tokens, batch, _ = call[0].shape
    bidirectional = call.node.attributes.get_string("direction", "forward") == "bidirectional"
    directions, hidden = 1 + bidirectional, call.int("hidden_size")
    last = TensorInfo((directions, batch, hidden), FLOAT)
    return [TensorInfo((tokens, directions, batch, hidden), FLOAT), last, last]
