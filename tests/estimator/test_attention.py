"""Attention, fused and written out, and tables of which a run reads some rows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from compress.estimator import estimate

HEADS, TOKENS, WIDTH = 8, 512, 64


def written_out(after: str) -> onnx.ModelProto:
    """Scores, softmax, perhaps something after it, and values."""
    return parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 18]>
        g (float16[1,8,512,64] q, float16[1,8,64,512] kt, float16[1,8,512,64] v) => (float16[1,8,512,64] y) {{
            scores = MatMul(q, kt)
            wide = Cast<to=1>(scores)
            p = Softmax(wide)
            {after}
            y = MatMul(last, v)
        }}""")


@pytest.mark.parametrize(
    "after",
    ["last = Cast<to=10>(p)", "half = Cast<to=10>(p)\n last = HardSigmoid<alpha=1.0, beta=0.0>(half)"],
)
def test_scores_stay_on_the_chip_through_what_follows_a_softmax(after: str) -> None:
    found = estimate(written_out(after), "h200").total
    assert found.dram_bytes == 4 * HEADS * TOKENS * WIDTH * 2


def grouped(past: int, tokens: int) -> onnx.ModelProto:
    """Two heads of keys and values for eight of queries, all side by side in one input."""
    node = helper.make_node(
        "GroupQueryAttention",
        ["qkv", "", "", "pk", "pv", "lengths", "all"],
        ["y", "k", "v"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=2,
    )
    half = TensorProto.FLOAT16
    cache = [1, 2, past, WIDTH]
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("qkv", half, [1, tokens, (HEADS + 4) * WIDTH]),
            helper.make_tensor_value_info("pk", half, cache),
            helper.make_tensor_value_info("pv", half, cache),
        ],
        [
            helper.make_tensor_value_info("y", half, [1, tokens, HEADS * WIDTH]),
            helper.make_tensor_value_info("k", half, [1, 2, past + tokens, WIDTH]),
            helper.make_tensor_value_info("v", half, [1, 2, past + tokens, WIDTH]),
        ],
        [
            numpy_helper.from_array(np.array([past + tokens - 1], np.int32), "lengths"),
            numpy_helper.from_array(np.array(past + tokens, np.int32), "all"),
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(("past", "tokens"), [(100, 1), (1500, 1), (64, 1200)])
def test_packed_attention_reads_the_cache(past: int, tokens: int) -> None:
    found = estimate(grouped(past, tokens), "h200").total
    assert found.macs == 2 * HEADS * WIDTH * tokens * (past + tokens)
    new = tokens * (HEADS + 4) * WIDTH + tokens * HEADS * WIDTH + 2 * 2 * tokens * WIDTH
    assert found.dram_bytes == pytest.approx(2 * (new + 2 * 2 * past * WIDTH), rel=0.01)


def test_a_table_of_codes_is_read_with_the_scales_of_the_rows_that_are_asked_for() -> None:
    words, width, asked = 32000, 256, 4
    node = helper.make_node(
        "GatherBlockQuantized",
        ["table", "ids", "scales"],
        ["y"],
        domain="com.microsoft",
        bits=4,
        block_size=32,
        gather_axis=0,
        quantize_axis=1,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [asked])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [asked, width])],
        [
            numpy_helper.from_array(np.full((words, width // 2), 0x11, np.uint8), "table"),
            numpy_helper.from_array(np.ones((words, width // 32), np.float32), "scales"),
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    found = estimate(helper.make_model(graph, opset_imports=opsets, ir_version=9), "h200").total
    assert found.dram_bytes == asked * (8 + width // 2 + 2 * width // 32 + 2 * width)  # floats as fp16
