"""Shape rules against what ONNX Runtime really gives, one tiny model each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from compress.graph import shapes
from compress.graph.facts.record import LAYOUTS, MICROSOFT, ML
from compress.graph.session import session_options, start
from compress.graph.shape_rules import BOUNDS, RULES
from compress.graph.tensor_info import TensorInfo

BLOCKED = LAYOUTS[0]
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Fixed:
    """An input with the same number everywhere; a constant of the graph."""

    array: np.ndarray


def f(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def u(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 9, shape).astype(np.uint8)


def s(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 9, shape).astype(np.int8)


def fixed(number: float, dtype: Any = np.int64, *shape: int) -> Fixed:
    return Fixed(np.full(shape, number, dtype))


STEP, ZERO_U, ZERO_S = fixed(0.1, np.float32), fixed(0, np.uint8), fixed(0, np.int8)
IDS = fixed(0, np.int32, 2, 5)
UNIT = fixed(1 / 256, np.float32)

CASES: list[tuple[str, str, list[Any], int, dict[str, Any]]] = [
    (MICROSOFT, "QuickGelu", [f(2, 5, 8)], 1, {}),
    (MICROSOFT, "FastGelu", [f(2, 5, 8), f(8)], 1, {}),
    (MICROSOFT, "BiasGelu", [f(2, 5, 8), f(8)], 1, {}),
    (MICROSOFT, "Gelu", [f(2, 5, 8)], 1, {}),
    (MICROSOFT, "SkipLayerNormalization", [f(2, 5, 8), f(2, 5, 8), f(8), f(8), f(8)], 4, {}),
    (MICROSOFT, "SkipSimplifiedLayerNormalization", [f(2, 5, 8), f(2, 5, 8), f(8)], 4, {}),
    ("", "SimplifiedLayerNormalization", [f(2, 5, 8), f(8)], 2, {}),
    (
        MICROSOFT,
        "EmbedLayerNormalization",
        [IDS, IDS, f(10, 8), f(10, 8), f(2, 8), f(8), f(8), fixed(1, np.int32, 2, 5)],
        2,
        {},
    ),
    (MICROSOFT, "Attention", [f(2, 5, 8), f(8, 24), f(24)], 1, {"num_heads": 2}),
    (MICROSOFT, "Attention", [f(2, 5, 8), f(8, 24), f(24), None, f(2, 2, 2, 3, 4)], 2, {"num_heads": 2}),
    (
        MICROSOFT,
        "Attention",
        [f(2, 5, 8), f(8, 20), f(20)],
        1,
        {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 4]},
    ),
    (
        MICROSOFT,
        "QAttention",
        [u(2, 5, 8), s(8, 24), f(24), STEP, STEP, None, ZERO_U, ZERO_S],
        1,
        {"num_heads": 2},
    ),
    (MICROSOFT, "MultiHeadAttention", [f(2, 5, 8), f(2, 7, 8), f(2, 7, 8)], 1, {"num_heads": 2}),
    (MICROSOFT, "MultiHeadAttention", [f(2, 5, 8), f(2, 7, 8), f(2, 7, 12)], 1, {"num_heads": 2}),
    (MICROSOFT, "MultiHeadAttention", [f(2, 5, 8), f(2, 2, 7, 4), f(2, 2, 7, 4)], 1, {"num_heads": 2}),
    (
        MICROSOFT,
        "MultiHeadAttention",
        [f(2, 5, 8), f(2, 5, 8), f(2, 5, 8), None, None, None, f(2, 2, 3, 4), f(2, 2, 3, 4)],
        3,
        {"num_heads": 2},
    ),
    (
        MICROSOFT,
        "DecoderMaskedMultiHeadAttention",
        [f(2, 1, 8), f(2, 1, 8), f(2, 1, 8), None, None, f(2, 2, 6, 4), f(2, 2, 6, 4), fixed(3, np.int32, 1)],
        3,
        {"num_heads": 2, "past_present_share_buffer": 1},
    ),
    (
        MICROSOFT,
        "GroupQueryAttention",
        [
            *(f(2, 1, 32), f(2, 1, 16), f(2, 1, 16), f(2, 2, 6, 8), f(2, 2, 6, 8)),
            *(fixed(6, np.int32, 2), fixed(7, np.int32, 1)),
        ],
        3,
        {"num_heads": 4, "kv_num_heads": 2},
    ),
    (
        MICROSOFT,
        "GroupQueryAttention",
        [f(2, 5, 64), None, None, f(2, 2, 0, 8), f(2, 2, 0, 8), fixed(4, np.int32, 2), fixed(5, np.int32, 1)],
        3,
        {"num_heads": 4, "kv_num_heads": 2},
    ),
    (
        MICROSOFT,
        "GroupQueryAttention",
        [
            *(f(1, 1, 32), f(1, 1, 16), f(1, 1, 16), f(1, 2, 9, 8), f(1, 2, 9, 8)),
            *(fixed(6, np.int32, 1), fixed(7, np.int32, 1)),
        ],
        3,
        {"num_heads": 4, "kv_num_heads": 2},
    ),
    (
        MICROSOFT,
        "RotaryEmbedding",
        [f(2, 5, 32), fixed(0, np.int64, 2, 5), f(16, 4), f(16, 4)],
        1,
        {"num_heads": 4},
    ),
    (MICROSOFT, "RotaryEmbedding", [f(2, 4, 5, 8), fixed(0, np.int64, 2, 5), f(16, 4), f(16, 4)], 1, {}),
    (
        MICROSOFT,
        "MatMulNBits",
        [f(2, 5, 64), u(16, 2, 16), f(32)],
        1,
        {"K": 64, "N": 16, "bits": 4, "block_size": 32},
    ),
    (
        MICROSOFT,
        "MatMulBnb4",
        [f(2, 5, 64), u(512), f(16)],
        1,
        {"K": 64, "N": 16, "block_size": 64, "quant_type": 1},
    ),
    (
        MICROSOFT,
        "GatherBlockQuantized",
        [u(10, 16), fixed(0, np.int64, 2, 5), f(10, 1)],
        1,
        {"gather_axis": 0, "quantize_axis": 1, "block_size": 32, "bits": 4},
    ),
    (MICROSOFT, "FusedMatMul", [f(2, 5, 8), f(2, 7, 8)], 1, {"transB": 1, "alpha": 0.5}),
    (MICROSOFT, "FusedMatMul", [f(2, 8, 5), f(8, 7)], 1, {"transA": 1}),
    (MICROSOFT, "FusedMatMul", [f(5, 2, 8), f(2, 8, 7)], 1, {"transBatchA": 1}),
    (MICROSOFT, "FusedGemm", [f(5, 8), f(8, 7), f(7)], 1, {"activation": "Relu"}),
    (
        MICROSOFT,
        "FusedConv",
        [f(1, 3, 16, 16), f(8, 3, 3, 3), f(8)],
        1,
        {"activation": "Relu", "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    (MICROSOFT, "DynamicQuantizeMatMul", [f(2, 5, 8), s(8, 7), fixed(0.1, np.float32, 1)], 1, {}),
    (
        MICROSOFT,
        "MatMulIntegerToFloat",
        [u(2, 5, 8), s(8, 7), fixed(0.1, np.float32, 1), fixed(0.1, np.float32, 1), ZERO_U],
        1,
        {},
    ),
    (
        MICROSOFT,
        "DynamicQuantizeLSTM",
        [
            *(f(4, 2, 8), s(1, 8, 64), s(1, 16, 64), None, None, None, None, None),
            *(fixed(0.1, np.float32, 1, 64), fixed(0, np.int8, 1, 64)),
            *(fixed(0.1, np.float32, 1, 64), fixed(0, np.int8, 1, 64)),
        ],
        3,
        {"hidden_size": 16},
    ),
    (MICROSOFT, "QGemm", [u(5, 8), STEP, ZERO_U, s(8, 7), STEP, ZERO_S, None, STEP, ZERO_U], 1, {}),
    (MICROSOFT, "QGemm", [u(5, 8), STEP, ZERO_U, s(7, 8), STEP, ZERO_S], 1, {"transB": 1}),
    (MICROSOFT, "QLinearAdd", [u(2, 5), STEP, ZERO_U, u(5), STEP, ZERO_U, STEP, ZERO_U], 1, {}),
    (MICROSOFT, "QLinearMul", [u(2, 5), STEP, ZERO_U, u(5), STEP, ZERO_U, STEP, ZERO_U], 1, {}),
    (MICROSOFT, "QLinearSigmoid", [u(2, 5), STEP, ZERO_U, STEP, ZERO_U], 1, {}),
    (MICROSOFT, "QLinearLeakyRelu", [u(2, 5), STEP, ZERO_U, STEP, ZERO_U], 1, {"alpha": 0.1}),
    (MICROSOFT, "QLinearSoftmax", [u(2, 5), STEP, ZERO_U, UNIT, ZERO_U], 1, {"axis": -1, "opset": 13}),
    (
        MICROSOFT,
        "QLinearConcat",
        [STEP, ZERO_U, u(2, 3), STEP, ZERO_U, u(2, 4), STEP, ZERO_U],
        1,
        {"axis": 1},
    ),
    (
        MICROSOFT,
        "QLinearWhere",
        [u(2, 5) > 4, u(2, 5), STEP, ZERO_U, u(5), STEP, ZERO_U, STEP, ZERO_U],
        1,
        {},
    ),
    (MICROSOFT, "QLinearGlobalAveragePool", [u(1, 3, 8, 8), STEP, ZERO_U, STEP, ZERO_U], 1, {}),
    (
        MICROSOFT,
        "QLinearGlobalAveragePool",
        [u(1, 8, 8, 3), STEP, ZERO_U, STEP, ZERO_U],
        1,
        {"channels_last": 1},
    ),
    (
        MICROSOFT,
        "QLinearAveragePool",
        [u(1, 3, 9, 9), STEP, ZERO_U, STEP, ZERO_U],
        1,
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    ),
    (
        MICROSOFT,
        "QLinearConv",
        [u(1, 8, 8, 3), STEP, ZERO_U, s(4, 3, 3, 3), STEP, ZERO_S, STEP, ZERO_U],
        1,
        {"channels_last": 1},
    ),
    (MICROSOFT, "NhwcMaxPool", [u(1, 8, 8, 3)], 1, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    (MICROSOFT, "QuantizeLinear", [f(2, 5), STEP, ZERO_U], 1, {}),
    (MICROSOFT, "DequantizeLinear", [u(2, 5), STEP, ZERO_U], 1, {}),
    (MICROSOFT, "Inverse", [f(2, 4, 4)], 1, {}),
    (MICROSOFT, "Trilu", [f(4, 4)], 1, {}),
    (MICROSOFT, "ExpandDims", [f(2, 4), fixed(1, np.int32)], 1, {}),
    (MICROSOFT, "Pad", [f(2, 4), Fixed(np.array([1, 0, 0, 2]))], 1, {"mode": "constant"}),
    (MICROSOFT, "CDist", [f(3, 4), f(5, 4)], 1, {}),
    (MICROSOFT, "GridSample", [f(1, 2, 5, 5), f(1, 4, 6, 2)], 1, {}),
    (
        MICROSOFT,
        "MoE",
        [f(6, 16), f(6, 4), f(4, 32, 16), None, f(4, 16, 32)],
        1,
        {"k": 2, "activation_type": "relu"},
    ),
    (
        MICROSOFT,
        "QMoE",
        [f(6, 32), f(6, 4), u(4, 32, 16), f(4, 32), None, u(4, 32, 16), f(4, 32)],
        1,
        {"k": 2, "activation_type": "relu", "expert_weight_bits": 4},
    ),
    (ML, "Binarizer", [f(2, 4)], 1, {"threshold": 0.5}),
    (ML, "Imputer", [f(2, 4)], 1, {"imputed_value_floats": [1.0], "replaced_value_float": 0.0}),
    (ML, "Normalizer", [f(2, 4)], 1, {"norm": "L2"}),
    (ML, "Scaler", [u(2, 4).astype(np.int64)], 1, {"offset": [0.0], "scale": [2.0]}),
    ("", "STFT", [f(1, 30, 1), fixed(2), None, fixed(16)], 1, {}),
    ("", "STFT", [f(2, 30, 1), fixed(2), f(16)], 1, {"onesided": 0}),
    ("", "GroupNormalization", [f(2, 4, 6), f(4), f(4)], 1, {"num_groups": 2}),
    ("", "MeanVarianceNormalization", [f(2, 3, 4, 4)], 1, {}),
    ("", "LayerNormalization", [f(2, 5, 8), f(8), f(8)], 3, {"axis": 1}),
    (BLOCKED, "ReorderInput", [f(1, 16, 8, 8)], 1, {}),
    (BLOCKED, "Conv", [f(1, 16, 8, 8), f(16, 16, 3, 3)], 1, {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
    (BLOCKED, "MaxPool", [f(1, 16, 8, 8)], 1, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    (BLOCKED, "AveragePool", [f(1, 16, 8, 8)], 1, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    (BLOCKED, "GlobalAveragePool", [f(1, 16, 8, 8)], 1, {}),
    (BLOCKED, "GlobalMaxPool", [f(1, 16, 8, 8)], 1, {}),
    (BLOCKED, "ReorderOutput", [f(1, 16, 8, 8)], 1, {"channels": 16}),
    (BLOCKED, "ReorderOutput", [f(1, 16, 8, 8)], 1, {"channels": 12, "channels_last": 1}),
    (BLOCKED, "Upsample", [f(1, 16, 8, 8)], 1, {"scales": [1, 1, 2, 2]}),
]
UNRUN = {
    *("BiasAdd", "BiasSoftmax", "BiasSplitGelu", "GroupNorm", "SkipGroupNorm", "NhwcConv", "PackedAttention"),
    *("PackedMultiHeadAttention", "LongformerAttention", "GemmFastGelu", "DecoderMaskedSelfAttention"),
    *("TransposeMatMul", "FusedMatMulActivation", "BiasDropout", "MatMulInteger16", "NhwcFusedConv"),
    *("QLinearReduceMean", "Dropout"),
}
"""Operators that the runtime's processor build does not run in a model of one node."""


def model_of(
    domain: str, op_type: str, inputs: list[Any], count: int, attributes: dict[str, Any]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    names, feeds, constants = [], {}, []
    for place, content in enumerate(inputs):
        names.append("" if content is None else f"x{place}")
        if isinstance(content, Fixed):
            constants.append(onnx.numpy_helper.from_array(content.array, names[-1]))
        elif content is not None:
            feeds[names[-1]] = content
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [f"y{place}" for place in range(count)]
    if "Skip" in op_type and count > 3:
        outputs[1:3] = "", ""
    node = helper.make_node(op_type, names, outputs, domain=domain, **attributes)
    results = [onnx.ValueInfoProto(name=name) for name in outputs if name]
    graph = helper.make_graph([node], "g", infos, results, constants)
    versions = {"": 21, ML: 3, MICROSOFT: 1, BLOCKED: 1}
    sets = [helper.make_opsetid(name, version) for name, version in versions.items()]
    return helper.make_model(graph, opset_imports=sets, ir_version=10), feeds


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case[1]}" for number, case in enumerate(CASES)])
def test_rules_agree_with_the_runtime(case: tuple[str, str, list[Any], int, dict[str, Any]]) -> None:
    proto, feeds = model_of(*case)
    session = start(proto.SerializeToString(), session_options(1), ["CPUExecutionProvider"])
    given = {
        output.name: array
        for output, array in zip(session.get_outputs(), session.run(None, feeds), strict=True)
    }
    found = shapes.describe(ir.from_proto(proto))
    expected = {
        name: TensorInfo(array.shape, ir.DataType.from_numpy(array.dtype)) for name, array in given.items()
    }
    assert {name: found[name] for name in expected} == expected


def test_every_rule_is_held_against_the_runtime() -> None:
    tried = {(domain, op_type) for domain, op_type, *_ in CASES}
    assert {name for domain, name in set(RULES) - tried} == UNRUN


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "most"),
    [
        ("NonZero", [f(2, 3)], {}, (2, 6)),
        ("Compress", [f(2, 3), u(2) > 4], {"axis": 0}, (2, 3)),
        ("Compress", [f(2, 3), u(2) > 4], {}, (6,)),
        ("Unique", [f(2, 3)], {}, (6,)),
        ("Unique", [f(2, 3)], {"axis": 1}, (2, 3)),
        ("NonMaxSuppression", [f(2, 7, 4), f(2, 3, 7), fixed(5)], {}, (30, 3)),
        ("NonMaxSuppression", [f(2, 7, 4), f(2, 3, 7), fixed(9)], {}, (42, 3)),
    ],
)
def test_what_data_decides_counts_with_the_most(
    op_type: str, inputs: list[Any], attributes: dict[str, Any], most: tuple[int, ...]
) -> None:
    proto, feeds = model_of("", op_type, inputs, 1, attributes)
    assert ("", op_type) in BOUNDS
    assert shapes.infer(ir.from_proto(proto))["y0"] == most
    session = start(proto.SerializeToString(), session_options(1), ["CPUExecutionProvider"])
    (given,) = session.run(None, feeds)
    assert all(size <= bound for size, bound in zip(given.shape, most, strict=True))


def test_what_constants_decide_is_exact() -> None:
    proto, _ = model_of("", "NonZero", [Fixed(np.array([0, 1, 0, 1]))], 1, {})
    assert shapes.infer(ir.from_proto(proto))["y0"] == (1, 2)


def test_channels_in_blocks_are_as_many_as_the_convolution_reads() -> None:
    proto, _ = model_of(BLOCKED, "ReorderInput", [f(1, 12, 8, 8)], 1, {})
    weight = onnx.numpy_helper.from_array(f(16, 16, 3, 3), "w")
    proto.graph.initializer.append(weight)
    proto.graph.node.append(helper.make_node("Conv", ["y0", "w"], ["z"], domain=BLOCKED, kernel_shape=[3, 3]))
    found = shapes.infer(ir.from_proto(proto))
    assert (found["y0"], found["z"]) == ((1, 16, 8, 8), (1, 16, 6, 6))


def test_packed_and_unfilled_variants() -> None:
    packed, _ = model_of(MICROSOFT, "PackedAttention", [f(9, 8), f(8, 24), f(24)], 1, {"num_heads": 2})
    assert shapes.infer(ir.from_proto(packed))["y0"] == (9, 8)
    apart, _ = model_of(MICROSOFT, "PackedMultiHeadAttention", [f(9, 2, 3, 4)], 1, {"num_heads": 2})
    assert shapes.infer(ir.from_proto(apart))["y0"] == (9, 8)
