"""Shapes of the operators that ONNX's own inference does not tell, one small rule each.

Most are ONNX Runtime's: what its transformer tools, its quantizers and its graph optimizer write into a
model. Every rule is held against what the runtime really gives in ``tests/graph/test_shape_rules.py``.

Source: ONNX Runtime's ContribOperators.md, and its kernels where that is silent.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from compress.graph.facts.record import LAYOUTS, MICROSOFT
from compress.graph.shape_rules import attention, data, images, products
from compress.graph.shape_rules.call import Call, Outputs, Rule
from compress.graph.tensor_info import TensorInfo, standard

FLOAT, INT32, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL


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


def _dequantize(call: Call) -> Outputs:
    return [call[0]._replace(dtype=call[1].dtype)]


def _concatenation(call: Call) -> Outputs:
    axis = ir.AttrInt64("axis", call.int("axis"))
    parts = call.inputs[2::3]
    return [standard("Concat", parts, [axis])]


def _halved(call: Call) -> Outputs:
    return [call[0]._replace(shape=(*call[0].shape[:-1], call[0].shape[-1] // 2))]


def _distances(call: Call) -> Outputs:
    return [call[0]._replace(shape=(call[0].shape[0], call[1].shape[0]))]


def _expanded(call: Call) -> Outputs:
    axis = call.number(1)
    if axis is None:
        return []
    sizes = list(call[0].shape)
    sizes.insert(axis if axis >= 0 else axis + len(sizes) + 1, 1)
    return [call[0]._replace(shape=tuple(sizes))]


def _padded(call: Call) -> Outputs:
    pads = call.values[1] if len(call.values) > 1 else None
    if pads is None:
        return []
    before, after = pads.reshape(2, -1).tolist()
    sizes = (sum(each) for each in zip(call[0].shape, before, after, strict=True))
    return [call[0]._replace(shape=tuple(sizes))]


def _quantized_mean(call: Call) -> Outputs:
    axes = call.node.attributes.get_ints("axes", ()) or range(len(call[0].shape))
    gone = {axis % len(call[0].shape) for axis in axes}
    kept = call.int("keepdims", 1)
    sizes = [
        1 if axis in gone else size for axis, size in enumerate(call[0].shape) if kept or axis not in gone
    ]
    return [call[0]._replace(shape=tuple(sizes))]


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
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLSTM": products.quantized_lstm,
    "DynamicQuantizeMatMul": lambda call: products.product(call[0].shape, call[1].shape, FLOAT),
    "EmbedLayerNormalization": attention.embedding,
    "ExpandDims": _expanded,
    "FusedConv": images.windowed("Conv", weight=1, last=False),
    "FusedGemm": products.gemm,
    "GatherBlockQuantized": products.packed_rows,
    "GemmFastGelu": lambda call: products.product(call[0].shape, call[1].shape, call[0].dtype),
    "GridSample": images.grid_sample,
    "GroupQueryAttention": attention.grouped_attention,
    "MatMulInteger16": lambda call: products.product(call[0].shape, call[1].shape, INT32),
    "MatMulIntegerToFloat": lambda call: products.product(call[0].shape, call[1].shape, call[2].dtype),
    "MultiHeadAttention": attention.multi_head_attention,
    "NhwcConv": images.nhwc_convolution,
    "NhwcFusedConv": images.windowed("Conv", weight=1, last=True),
    "NhwcMaxPool": images.windowed("MaxPool", last=True),
    "PackedAttention": attention.packed_attention,
    "PackedMultiHeadAttention": attention.packed_multi_head_attention,
    "Pad": _padded,
    "QAttention": attention.attention(typed=3, past=8),
    "QGemm": products.qgemm,
    "QLinearAdd": products.broadcast(0, 3),
    "QLinearAveragePool": images.windowed("AveragePool"),
    "QLinearConcat": _concatenation,
    "QLinearConv": images.windowed("Conv", weight=3, typed=7),
    "QLinearGlobalAveragePool": images.windowed("GlobalAveragePool"),
    "QLinearMul": products.broadcast(0, 3),
    "QLinearReduceMean": _quantized_mean,
    "QLinearWhere": products.broadcast(0, 1, 4, typed=1),
    "QuantizeLinear": _quantize,
}
_BLOCKED: Mapping[str, Rule] = {
    "AveragePool": images.windowed("AveragePool", last=False),
    "Conv": images.blocked_convolution,
    "GlobalAveragePool": images.windowed("GlobalAveragePool", last=False),
    "GlobalMaxPool": images.windowed("GlobalMaxPool", last=False),
    "MaxPool": images.windowed("MaxPool", last=False),
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
RULES: Mapping[tuple[str, str], Rule] = {
    (domain, name): rule
    for domain, rules in (("", _ONNX), (MICROSOFT, _MICROSOFT), (LAYOUTS[0], _BLOCKED))
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
"""The most that operators may give whose output's size depends on the data."""
