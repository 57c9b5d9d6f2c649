"""Batches: no sample costs more in a larger one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from compress.estimator import Cost, estimate, ids, load
from compress.estimator.batching import in_parts, samples
from compress.estimator.catalogue import as_profile
from compress.estimator.cost import cost
from compress.estimator.hardware import Number, Profile, parse_number
from compress.estimator.mapping import Loops
from compress.estimator.workload import LayerWork, Operand
from compress.graph.shapes import describe, lay_out
from compress.source import read_proto

SPLITTING = [name for name in ids() if load(name).executes == "logical"]
WHOLE = ["cpu", "cpu-arm"]
"""The exception: ONNX Runtime computes a layer for all samples before the next, and maps between them leave
the caches. Measured on one core, a sample in a batch of 256 takes 1.1 to 2.2 times as long as alone."""


def _layers(shapes: list[Loops], bits: int, kind: Any) -> list[LayerWork]:
    layers = []
    for place, loops in enumerate(shapes):
        names = (f"x{place}", f"w{place}", f"x{place + 1}")
        stored = [
            Operand(name, count, count * bits / 8, name[0] == "w", bits=bits, is_integer=kind == "int")
            for name, count in zip(names, loops.elements, strict=True)
        ]
        operator = "Conv" if loops.out[1] > 1 else "MatMul"
        layers.append(LayerWork(names[0], operator, Number(kind, bits), loops, *stored, produces=names[2]))
    return layers


def _joules_a_sample(
    hardware: str | Profile, batch: int, c: int, m: int, k: int, size: int, kernel: int
) -> float:
    profile = as_profile(hardware)
    number = parse_number(next(iter(profile.arithmetic)))
    window = (kernel, kernel)
    wide = Loops(n=batch, m=m, c=c, out=(size, size), kernel=window, padding=(kernel - 1, kernel - 1))
    shapes = [wide, Loops(n=batch, m=k, c=m, out=(size, size)), Loops(m=c, c=k, out=(batch * size**2, 1))]
    layers, places = in_parts(_layers(shapes, number.bits, number.kind), profile, frozenset(["x3"]), batch)
    return sum((cost(layer, profile, places)[0] for layer in layers), Cost()).energy_joules / batch


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(SPLITTING),
    st.lists(st.integers(1, 256), min_size=2, max_size=2, unique=True).map(sorted),
    *[st.integers(1, 512)] * 3,
    st.sampled_from([(1, 1), (7, 3), (28, 3), (56, 1)]),
)
def test_a_sample_never_costs_more_in_a_larger_batch(
    hardware: str, batches: list[int], c: int, m: int, k: int, plane: tuple[int, int]
) -> None:
    small, large = (_joules_a_sample(hardware, batch, c, m, k, *plane) for batch in batches)
    assert large <= small * (1 + 1e-9)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(WHOLE),
    st.integers(2, 256),
    *[st.integers(1, 512)] * 3,
    st.sampled_from([(1, 1), (7, 3), (28, 3), (56, 1)]),
)
def test_no_sample_of_a_whole_batch_costs_more_than_without_caches_between_layers(
    hardware: str, batch: int, c: int, m: int, k: int, plane: tuple[int, int]
) -> None:
    profile = load(hardware)
    memories = (memory.model_copy(update={"keeps": frozenset()}) for memory in profile.memories)
    forgetful = profile.model_copy(update={"memories": tuple(memories)})
    whole = _joules_a_sample(profile, batch, c, m, k, *plane)
    assert whole <= (1 + 1e-9) * _joules_a_sample(forgetful, 1, c, m, k, *plane)


def _network(batch: int) -> onnx.ModelProto:
    """Two convolutions of 1x1 whose maps fit on an edge-tpu for a few samples."""
    weights = [
        numpy_helper.from_array(np.ones((64, 64, 1, 1), np.int8).astype(np.float32), name) for name in "vw"
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "v"], ["h"]), helper.make_node("Conv", ["h", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, 64, 56, 56])],
        [helper.make_tensor_value_info("y", kind, [batch, 64, 56, 56])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("hardware", ["tpu-v4i", "phone-npu"])
def test_a_large_batch_keeps_its_maps_on_the_chip_in_parts(hardware: str) -> None:
    one, many = (estimate(_network(batch), hardware).total for batch in (1, 4096))
    assert many.macs == 4096 * one.macs
    assert many.dram_bytes == pytest.approx(4096 * one.dram_bytes, rel=0.05)
    assert many.dram_bytes <= 4096 * one.dram_bytes


def test_samples_are_counted_along_the_batch() -> None:
    graph = read_proto(_network(7))
    assert samples(graph.graph, describe(graph)) == 7
    graph.graph.inputs[0].shape = None
    assert samples(graph.graph, {"x": describe(graph, {"x": (1, 64, 56, 56)})["x"]}) == 1


_STEP = """<ir_version: 10, opset_import: ["": 23]>
step (float16[batch, 1, 64] q, float16[batch, 1, 64] k, float16[batch, 1, 64] v,
      float16[batch, 1, past, 64] past_k, float16[batch, 1, past, 64] past_v)
    => (float16[batch, 1, 64] y, float16[batch, 1, all, 64] now_k, float16[batch, 1, all, 64] now_v)
{{
    {body}
}}"""
_CACHES = {
    "inside": "y, now_k, now_v = Attention <q_num_heads = 1, kv_num_heads = 1> (q, k, v, , past_k, past_v)",
    "appended": """one = Constant <value_ints = [1]> ()
        heads = Unsqueeze(k, one)
        now_k = Concat <axis = 2> (past_k, heads)
        now_v = Concat <axis = 2> (past_v, heads)
        y = Add(q, v)""",
}


@pytest.mark.parametrize("body", _CACHES.values(), ids=_CACHES)
def test_requests_take_a_step_together_once_there_is_a_cache(body: str) -> None:
    graph = ir.from_onnx_text(_STEP.format(body=body))
    for past, apart in ((0, 9), (64, 1)):
        found = lay_out(graph, {"batch": 9, "past": past}, None)
        assert samples(graph.graph, found.known) == apart


def test_an_empty_batch_moves_nothing(build: Callable[..., onnx.ModelProto]) -> None:
    empty = build("g (float[0,4] x) => (float[0,4] y) { y = Relu(x) }")
    assert estimate(empty, "tpu-v4i").total.dram_bytes == 0
