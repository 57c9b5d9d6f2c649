"""Operators that multiply and accumulate, with the places of their weights."""

from __future__ import annotations

from functools import partial

from compress.graph.facts.record import MICROSOFT, Operator, Weight

_convolution = partial(Operator, cost="convolution", weights=(Weight(1, 0, 1),), bias=2, channel_axis=1)
_product = partial(Operator, cost="product", weights=(Weight(1, 1, 0),), channel_axis=-1)
_packed = partial(
    Operator, domain=MICROSOFT, cost="packed product", weights=(Weight(1, 0, 1),), codes="packed", linear=True
)
_recurrent = partial(Operator, cost="recurrent", weights=(Weight(1, 1, 2), Weight(2, 1, 2)), channel_axis=-1)
_attention = partial(Operator, cost="attention", operands=3)
_projected = partial(
    Operator,
    domain=MICROSOFT,
    cost="projected attention",
    weights=(Weight(1, 1, 0),),
    bias=2,
    channel_axis=-1,
)

PRODUCTS = (
    _convolution("Conv", linear=True, on_integers="multiplies"),
    _convolution("ConvInteger", bias=None, codes="int8"),
    _convolution("ConvTranspose", cost="transposed convolution", weights=(Weight(1, 1, 0),), linear=True),
    _convolution("DeformConv", cost="deformable convolution", bias=3, linear=True),
    _convolution("QLinearConv", weights=(Weight(3, 0, 1),), bias=8, codes="int8"),
    _convolution("FusedConv", domain=MICROSOFT),
    _convolution("NhwcFusedConv", domain=MICROSOFT, channel_axis=-1),
    # Matrices
    _product("Gemm", turned_by="transB", bias=2, linear=True, on_integers="multiplies"),
    _product("MatMul", operands=2, linear=True, homogeneous=True, on_integers="multiplies"),
    _product("MatMulInteger", codes="int8"),
    _product("QLinearMatMul", weights=(Weight(3, 1, 0),), codes="int8"),
    _product("DynamicQuantizeMatMul", domain=MICROSOFT, bias=4, codes="int8", finds_range=True),
    _product("FusedGemm", domain=MICROSOFT, turned_by="transB", bias=2),
    _product("FusedMatMul", domain=MICROSOFT, operands=2, turned_by="transB", linear=True, homogeneous=True),
    _product("FusedMatMulActivation", domain=MICROSOFT, operands=2, turned_by="transB"),
    _product("GemmFastGelu", domain=MICROSOFT, bias=2),
    _product("MatMulInteger16", domain=MICROSOFT),
    _product("MatMulIntegerToFloat", domain=MICROSOFT, bias=6, codes="int8"),
    _product("QGemm", domain=MICROSOFT, weights=(Weight(3, 1, 0),), turned_by="transB", bias=6, codes="int8"),
    _product("TransposeMatMul", domain=MICROSOFT, operands=2, turned_by="transB", linear=True),
    _packed("MatMulBnb4", channel_axis=-1),
    _packed("MatMulFpQ4", channel_axis=-1),
    _packed("MatMulNBits", bias=5, channel_axis=-1),
    Operator("Einsum", cost="einsum", operands=None, linear=True, homogeneous=True),
    # Sequences
    _recurrent("GRU", gates=3),
    _recurrent("LSTM", gates=4),
    _recurrent("RNN", gates=1),
    _recurrent(
        "DynamicQuantizeLSTM",
        domain=MICROSOFT,
        weights=(Weight(1, 2, 1), Weight(2, 2, 1)),
        gates=4,
        codes="int8",
        finds_range=True,
    ),
    _attention("Attention", past=(4, 5)),
    _attention("GroupQueryAttention", domain=MICROSOFT, past=(3, 4)),
    _attention("MultiHeadAttention", domain=MICROSOFT, past=(6, 7)),
    _projected("Attention", past=(4,)),
    _projected("QAttention", codes="int8"),
)
