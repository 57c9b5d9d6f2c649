"""Energies are ordered as physics demands: by bits, by size and by zeros, on every profile."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compress.errors import DoesNotRunError
from compress.estimator import Cost, estimate, ids, load
from compress.estimator.hardware import Number

PROFILES = [name for name in ids() if name != "cpu"]  # it scores what the runtime makes of a graph
FLOATS = [name for name in PROFILES if load(name).runs_in(Number("float", 32))]
"""Those that floats run on."""
AS_BYTES = [name for name in PROFILES if load(name).runs_in(Number("float", 32)) == "int8"]
"""Those that deploy floats as 8-bit integers: integers save nothing there, and have a scale."""
NARROW = [name for name in PROFILES if load(name).runs_in(Number("int", 8)) == "int8"]
"""Those that do not widen 8-bit integers."""
KINDS = {
    "int4": TensorProto.INT4,
    "int8": TensorProto.INT8,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
}


def convolution(kind: str, m: int, c: int, size: int, kernel: int) -> onnx.ModelProto:
    """A convolution whose operands are stored in `kind`; integers stand between Q and DQ."""
    shape = [m, c, kernel, kernel]
    weight = helper.make_tensor("w", KINDS[kind], shape, np.ones(shape, np.int8))
    activations = KINDS["int8" if kind.startswith("int") else kind]
    x = helper.make_tensor_value_info("x", activations, [1, c, size, size])
    y = helper.make_tensor_value_info("y", activations, None)
    conv = {"pads": [kernel // 2] * 4, "name": "conv"}
    constants = [weight]
    if kind.startswith("int"):
        constants.append(helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]))
        constants.append(helper.make_tensor("z", TensorProto.INT8, [], [0]))
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "s"], ["wd"]),
            helper.make_node("Conv", ["xd", "wd"], ["c"], **conv),
            helper.make_node("QuantizeLinear", ["c", "s", "z"], ["y"]),
        ]
    else:
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], **conv)]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def packed(bits: int, n: int, blocks: int, rows: int) -> onnx.ModelProto:
    """A MatMulNBits."""
    k = 32 * blocks
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=32
    )
    codes = np.zeros((n, blocks, 4 * bits), np.uint8)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, n])],
        [
            onnx.numpy_helper.from_array(codes, "w"),
            onnx.numpy_helper.from_array(np.ones(n * blocks, np.float32), "s"),
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def ordered(costs: list[Cost]) -> bool:
    return all(
        small.energy_joules <= large.energy_joules * (1 + 1e-9)
        and small.dram_bytes <= large.dram_bytes * (1 + 1e-9)
        and small.seconds <= large.seconds * (1 + 1e-9)
        for small, large in itertools.pairwise(costs)
    )


small, channels = st.integers(1, 24), st.integers(8, 160)  # below that a scale outweighs what it saves


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(PROFILES), channels, channels, small, st.sampled_from([1, 3, 5]))
def test_fewer_bits_and_fewer_channels(hardware: str, m: int, c: int, size: int, kernel: int) -> None:
    known = {True: NARROW, False: [name for name in FLOATS if name not in AS_BYTES]}
    kinds = [kind for kind in KINDS if hardware in known[kind.startswith("int")]]
    try:
        costs = {kind: estimate(convolution(kind, m, c, size, kernel), hardware).total for kind in kinds}
    except DoesNotRunError:  # too large for the smallest of the microcontrollers
        reject()
    assert ordered(list(costs.values()))
    for kind in kinds:
        pruned = estimate(convolution(kind, -(-m // 2), -(-c // 2), size, kernel), hardware).total
        assert ordered([pruned, costs[kind]])


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(FLOATS), channels, st.integers(1, 12), small)
def test_fewer_bits_of_packed_weights(hardware: str, n: int, blocks: int, rows: int) -> None:
    assert ordered([estimate(packed(bits, n, blocks, rows), hardware).total for bits in (2, 4, 8)])


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(FLOATS),
    st.sampled_from(["x", "w"]),
    channels,
    st.lists(st.floats(0, 1), min_size=2, max_size=4),
)
def test_more_zeros(hardware: str, name: str, c: int, zeros: list[float]) -> None:
    model = convolution("float16", 64, c, 8, 3)
    every = sorted({0.0, *zeros}, reverse=True)
    assert ordered([estimate(model, hardware, zeros={name: fraction}).total for fraction in every])


@pytest.mark.parametrize("hardware", PROFILES)
def test_more_inferences_at_once(hardware: str) -> None:
    model = convolution("int8", 64, 32, 8, 3)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert ordered([estimate(model, hardware, shapes={"batch": batch}).total for batch in (1, 2, 7, 16)])
