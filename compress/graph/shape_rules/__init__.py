"""Shapes of the operators that ONNX's own inference does not tell, one small rule each.

Most are ONNX Runtime's: what its transformer tools, its quantizers and its graph optimizer write into a
model. Every rule is held against what the runtime really gives in ``tests/graph/test_shape_rules.py``.

Source: ONNX Runtime's ContribOperators.md, and its kernels where that is silent.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from compress.graph.facts.record import LAYOUTS, MICROSOFT, ML
from compress.graph.shape_rules import attention, data, images, products
from compress.graph.shape_rules.alike import WINDOW, alike
from compress.graph.shape_rules.call import Call, Outputs, Rule
from compress.graph.tensor_info import TensorInfo, standard

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def _like(call: Call) -> Outputs:
    return [call[0]] * len(call.node.outputs)


def _normalization(call: Call) -> Outputs:
    """Y in the type of the scale, then mean and inverse deviation, with ones from the axis on."""
    shape, axis = call[0].shape, call.int("axis", -1)
    axis %= len(shape)
    statistics = TensorInfo((*shape[:axis], *[1] * (len(shape) - axis)), FLOAT)
    return [call[0]._replace(dtype=call[1].dtype), statistics, statistics]


def _skip_normalization(call: Call) -> Outputs:
    statistics = TensorInfo((*call[0].shape[:-1], 1), FLOAT)
    return [call[0], statistics, statistics, call[0]]


def _quantize(call: Call) -> Outputs:
    zero_point = call.get(2)
    return [call[0]._replace(dtype=zero_point.dtype if zero_point else ir.DataType.UINT8)]


def _concatenation(call: Call) -> Outputs:
    return [standard("Concat", call.inputs[2::3], call.attributes(["axis"]))]


def _halved(call: Call) -> Outputs:
    return [call[0]._replace(shape=(*call[0].shape[:-1], call[0].shape[-1] // 2))]


def _distances(call: Call) -> Outputs:
    return [call[0]._replace(shape=(call[0].shape[0], call[1].shape[0]))]


def _expanded(call: Call) -> Outputs:
    axis = call.number(1)
    if axis is None:
        return []
    return [standard("Unsqueeze", [call[0]], [ir.AttrInt64s("axes", [axis])], version=11)]


def _padded(call: Call) -> Outputs:
    pads = call.values[1] if len(call.values) > 1 else None
    if pads is None:
        return []
    return [standard("Pad", [call[0]], [ir.AttrInt64s("pads", pads.reshape(-1).tolist())], version=2)]


def _dropout(call: Call) -> Outputs:
    return [
        call[0],
        call[0]._replace(dtype=BOOL if call.version >= 10 or call.node.domain else call[0].dtype),
    ]


def _spectrum(call: Call) -> Outputs:
    """STFT: [batch, frames, bins, 2], by default half of the bins; ONNX's own inference always counts all."""
    signal, step, window = call[0].shape, call.number(1), call.get(2)
    length = window.shape[0] if window else call.number(3)
    if step is None or length is None:
        return []
    bins = length // 2 + 1 if call.int("onesided", 1) else length
    return [call[0]._replace(shape=(signal[0], (signal[1] - length) // step + 1, bins, 2))]


_TURNS = ("transA", "transB")
_SAME = (
    *("BiasAdd", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu", "GroupNorm", "Inverse"),
    *("LongformerAttention", "MoE", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QMoE"),
    *("QuickGelu", "RotaryEmbedding", "SkipGroupNorm", "Trilu"),
)
"""Operators of ONNX Runtime whose outputs all look like their first input."""
_MICROSOFT: Mapping[str, Rule] = {
    **dict.fromkeys(_SAME, _like),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), products.packed_product),
    **dict.fromkeys(("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul"), products.fused_matmul),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_normalization),
    "Attention": attention.attention(typed=0, past=4),
    "BiasDropout": _dropout,
    "BiasSplitGelu": _halved,
    "CDist": _distances,
    "DecoderMaskedMultiHeadAttention": attention.decoder_attention,
    "DecoderMaskedSelfAttention": attention.attention(typed=0, past=4, shared=True),
    "DequantizeLinear": alike("Identity", 0, dtype=1),
    "DynamicQuantizeLSTM": products.quantized_lstm,
    "DynamicQuantizeMatMul": alike("MatMul", 0, 1),
    "EmbedLayerNormalization": attention.embedding,
    "ExpandDims": _expanded,
    "FusedConv": alike("Conv", 0, 1, attributes=WINDOW),
    "FusedGemm": alike("Gemm", 0, 1, 2, attributes=_TURNS),
    "GatherBlockQuantized": products.packed_rows,
    "GemmFastGelu": alike("MatMul", 0, 1),
    "GridSample": alike("GridSample", 0, 1),
    "GroupQueryAttention": attention.grouped_attention,
    "MatMulInteger16": alike("MatMul", 0, 1, dtype=ir.DataType.INT32),
    "MatMulIntegerToFloat": alike("MatMul", 0, 1, dtype=2),
    "MultiHeadAttention": attention.multi_head_attention,
    "NhwcConv": images.nhwc_convolution,
    "NhwcFusedConv": alike("Conv", 0, 1, attributes=WINDOW, last=True),
    "NhwcMaxPool": alike("MaxPool", 0, attributes=WINDOW, last=True),
    "PackedAttention": attention.packed_attention,
    "PackedMultiHeadAttention": attention.packed_multi_head_attention,
    "Pad": _padded,
    "QAttention": attention.attention(typed=3, past=8),
    "QGemm": alike("Gemm", 0, 3, dtype=8, attributes=_TURNS),
    "QLinearAdd": alike("Add", 0, 3),
    "QLinearAveragePool": alike("AveragePool", 0, attributes=WINDOW, last=None),
    "QLinearConcat": _concatenation,
    "QLinearConv": alike("Conv", 0, 3, dtype=7, attributes=WINDOW, last=None),
    "QLinearGlobalAveragePool": alike("GlobalAveragePool", 0, last=None),
    "QLinearMul": alike("Mul", 0, 3),
    "QLinearReduceMean": alike("ReduceMean", 0, attributes=("axes", "keepdims"), version=13),
    "QLinearWhere": alike("Sum", 0, 1, 4, dtype=1),
    "QuantizeLinear": _quantize,
}
_BLOCKED: Mapping[str, Rule] = {
    "AveragePool": alike("AveragePool", 0, attributes=WINDOW),
    "Conv": images.blocked_convolution,
    "GlobalAveragePool": alike("GlobalAveragePool", 0),
    "GlobalMaxPool": alike("GlobalMaxPool", 0),
    "MaxPool": alike("MaxPool", 0, attributes=WINDOW),
    "ReorderInput": images.into_blocks,
    "ReorderOutput": images.out_of_blocks,
    "Upsample": images.blocked_upsample,
}
_ONNX: Mapping[str, Rule] = {
    "Dropout": _dropout,
    "GroupNormalization": _like,
    "LayerNormalization": _normalization,
    "MeanVarianceNormalization": _like,
    "STFT": _spectrum,
    "SimplifiedLayerNormalization": _normalization,
}
_ML: Mapping[str, Rule] = {
    "Binarizer": _like,
    "Imputer": _like,
    "Normalizer": alike("Identity", 0, dtype=FLOAT),
    "Scaler": alike("Identity", 0, dtype=FLOAT),
}
RULES: Mapping[tuple[str, str], Rule] = {
    (domain, name): rule
    for domain, rules in (
        ("", _ONNX),
        (ML, _ML),
        (MICROSOFT, _MICROSOFT),
        (LAYOUTS[0], _BLOCKED),
    )
    for name, rule in rules.items()
}
"""Rules by domain and operator. They come before ONNX's own inference."""

BOUNDS: Mapping[tuple[str, str], Rule] = {
    ("", "Compress"): data.chosen,
    ("", "NonMaxSuppression"): data.boxes,
    ("", "NonZero"): data.places_of_nonzeros,
    ("", "Unique"): data.distinct,
    (MICROSOFT, "Unique"): lambda call: [
        data.distinct(call)[0],
        *[TensorInfo((call[0].elements,), INT64)] * 2,
    ],
}
"""Rules for the largest output of operators whose output's size depends on the data."""
