"""Plans of weights: which integers a layer gets, and which kernels can read them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compress
from compress.changes import Reason
from compress.numerics.formats import IntegerFormat
from compress.quantize.plans import Precision, cheapest_block, plans

FOUR = Precision(4, 32, symmetric=None, method="mse", table_bits=8)


@pytest.fixture
def planned(build):
    def plan(text, precision, operators="onnxruntime", **weights):
        model = compress.load(build(text, **weights))
        found, changes = plans(model.graph, lambda layer: True, precision, operators)
        assert not changes
        return [(str(each.format), each.blocked) for each in found]

    return plan


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ("onnxruntime", ("uint4, groups of 32 along axis 0, mse", True)),
        ("expanded", ("int4, groups of 32 along axis 0, mse", False)),
        ("standard", ("int4, groups of 32 along axis 0, mse", False)),
    ],
)
def test_linear_layers(planned, normal, operators, expected):
    text = "g (float[N,64] x) => (float[N,48] y) { y = MatMul(x, w) }"
    assert planned(text, FOUR, operators, w=normal(64, 48)) == [expected]


def test_convolutions_store_zero_points_below_8_bits_and_depthwise_ones_keep_8(planned, normal):
    text = "g (float[N,8,9,9] x) => (float[N,8,5,5] y) { h = Conv<group=8>(x, d) y = Conv(h, w) }"
    assert planned(text, FOUR, d=normal(8, 1, 3, 3), w=normal(8, 8, 3, 3)) == [
        ("int8, per axis 0, mse", False),
        ("int4, per axis 0, asymmetric, mse", False),
    ]


@pytest.mark.parametrize(
    ("precision", "operators", "expected"),
    [
        (FOUR, "onnxruntime", ("uint8, groups of 64 along axis 1, mse", True)),
        (FOUR, "standard", ("int8, per axis 0, mse", False)),
        (Precision(4, 32, table_bits=4), "onnxruntime", ("uint4, groups of 32 along axis 1", True)),
        (Precision(4, 32), "standard", ("int8, per axis 0", False)),
        (Precision(8, 32, table_bits=8), "onnxruntime", ("uint8, groups of 32 along axis 1", True)),
        (Precision(4, None, table_bits=8), "onnxruntime", ("uint8, groups of 64 along axis 1", True)),
    ],
)
def test_embeddings(planned, normal, precision, operators, expected):
    text = "g (int64[N] i) => (float[N,64] y) { y = Gather(w, i) }"
    assert planned(text, precision, operators, w=normal(70, 64)) == [expected]


def test_a_weight_that_arithmetic_reads_as_well_is_not_blocked(planned, normal):
    text = "g (float[N,64] x) => (float[N,48] y) { h = MatMul(x, w) s = ReduceSum(w) y = Add(h, s) }"
    assert [blocked for _, blocked in planned(text, FOUR, w=normal(64, 48))] == [False]


def test_layers_that_are_not_chosen_are_accounted_for(build, normal):
    text = "g (float[N,64] x) => (float[N,64] y) { [one] h = MatMul(x, w) [two] y = MatMul(h, v) }"
    model = compress.load(build(text, w=normal(64, 64), v=normal(64, 64)))
    found, changes = plans(model.graph, lambda layer: layer.name == "two", FOUR, "standard")
    assert [plan.layer.name for plan in found] == ["two"]
    assert [(change.layer, change.skipped) for change in changes] == [("one", Reason.LEFT_OUT)]
    assert found[0].format == IntegerFormat.parse("int4, groups of 32 along axis 0, mse")


@given(st.integers(1, 5000), st.sampled_from([16, 32, 64, 128, 256]), st.sampled_from([2, 4, 8]))
def test_no_block_stores_fewer_bytes(features, largest, bits):
    def stored(size):
        return int(np.ceil(features / size)) * (size * bits // 8 + 2)

    size = cheapest_block(features, largest, bits)
    assert 16 <= size <= largest
    assert stored(size) == min(stored(1 << power) for power in range(4, 9) if 1 << power <= largest)
