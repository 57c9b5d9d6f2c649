"""Weights in few bits: every layout against the float weights, every kernel against numpy."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compress
from compress.graph.session import session
from compress.passes import (
    CodedWeights,
    Int4Weights,
    Int8,
    Int8Dynamic,
    Int8Static,
    Int8Weights,
    IntegerWeights,
    Palettize,
)
from compress.quantize.weight_only import FUSED_BEHIND_GEMM

ROWS = "g (float[N,{k}] x) => (float[N,{n}] y) {{ y = MatMul(x, w) }}"


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def operators(model):
    return [node.op_type for node in model.graph]


def stored(value):
    """The content of an initializer, also behind a Cast."""
    value = value if value.const_value is not None else value.producer().inputs[0]
    return value.const_value.numpy()


@settings(deadline=None, max_examples=25)
@given(
    k=st.integers(32, 150),
    n=st.integers(1, 20),
    group=st.sampled_from([16, 32, 64]),
    symmetric=st.booleans(),
    seed=st.integers(0, 99),
)
def test_packed_blocks_mean_what_numpy_makes_of_them(build, k, n, group, symmetric, seed):
    """The identity matrix through MatMulNBits gives the weights back; unpack them in numpy to compare."""
    weight = np.random.default_rng(seed).standard_normal((k, n)).astype(np.float32)
    small = Int4Weights(group_size=group, symmetric=symmetric)(
        compress.load(build(ROWS.format(k=k, n=n), w=weight))
    )
    if "MatMulNBits" not in operators(small):
        assert small.changes[-1].skipped
        return
    node = small.graph[-1]
    packed, scale, *zero = (stored(value) for value in node.inputs[1:])
    assert packed.shape == (
        n,
        -(-k // node.attributes["block_size"].value),
        node.attributes["block_size"].value // 2,
    )
    size = node.attributes["block_size"].value
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(n, -1, size).astype(np.float32)
    middle = np.full(scale.shape, 8.0, np.float32)
    if zero:
        middle = (
            np.stack([zero[0] & 15, zero[0] >> 4], -1).reshape(n, -1)[:, : scale.shape[1]].astype(np.float32)
        )
    dense = ((codes - middle[..., None]) * scale[..., None]).reshape(n, -1)[:, :k].T
    reconstructed = small.run({"x": np.eye(k, dtype=np.float32)})[0]
    np.testing.assert_allclose(reconstructed, dense, rtol=2e-2, atol=2e-2 * np.abs(weight).max())
    assert small.changes[-1].error == pytest.approx(distance(dense, weight), rel=1e-3)


@pytest.mark.parametrize("width", [31, 32, 33])
@pytest.mark.parametrize("chosen", [Int4Weights(), Int8Weights(), Int4Weights(operators="standard")])
def test_embeddings_of_any_width(build, normal, width, chosen):
    table = normal(70, width)
    small = chosen(
        compress.load(build(f"g (int64[N] i) => (float[N,{width}] y) {{ y = Gather(w, i) }}", w=table))
    )
    picked = small.run({"i": np.array([0, 7, -1])})[0]
    assert picked.shape == (3, width)
    assert distance(picked, table[[0, 7, -1]]) < 0.12


# ruff: noqa: E501  (a graph a line)
TIED = {
    "read in both layouts": (
        "g (float[N,64] x) => (float[N,64] y) { h = MatMul(x, w) t = Transpose<perm=[1,0]>(w) y = MatMul(h, t) }"
    ),
    "embedding and matrix": (
        "g (float[N,64] x) => (float[N,48] y) { h = MatMul(x, w) e = Gather(w, i) y = Add(h, e) }"
    ),
    "embedding and classifier": (
        "g (float[N,64] x) => (float[1,64] y) { e = Gather(w, i) t = Transpose<perm=[1,0]>(w) y = MatMul(e, t) }"
    ),
    "read by arithmetic": "g (float[N,64] x) => (float[N,48] y) { h = MatMul(x, w) s = ReduceSum(w) y = Add(h, s) }",
    "embedding and classifier of odd width": (
        "g (float[N,64] x) => (float[1,64] y) { e = Gather(w, i) t = Transpose<perm=[1,0]>(w) y = MatMul(e, t) }"
    ),
    "shared by two layers": (
        "g (float[N,64] x) => (float[N,48] y) { h = MatMul(x, w) z = Neg(x) k = MatMul(z, w) y = Sub(h, k) }"
    ),
}


@pytest.mark.parametrize("case", TIED)
@pytest.mark.parametrize("chosen", [Int8Weights(), Int8Weights(operators="standard"), Int4Weights()])
def test_shared_weights_are_stored_once_and_right(build, normal, case, chosen):
    width = 44 if "odd" in case else 48
    model = compress.load(build(TIED[case], w=normal(64, width), i=np.array([3])))
    small = chosen(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    x = normal(3, 64)
    limit = 0.03 if isinstance(chosen, Int8Weights) else 0.3
    assert distance(small.run({"x": x})[0], model.run({"x": x})[0]) < limit
    if case not in (
        "read by arithmetic",
        "embedding and classifier of odd width",
    ):  # two kernels, two layouts
        assert small.weight_bytes < 0.4 * model.weight_bytes


MASKED = """g (float[N,32] x, int64[N] i) => (float[N,32] y) {
    [good] h = MatMul(x, w) [bad] b = Gather(t, i) y = Add(h, b)
}"""


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize(
    "chosen",
    [Int4Weights(), Int8Weights(), Int8Dynamic(), Int8Static(), Int8(), Palettize(), CodedWeights()],
    ids=lambda each: each.name,
)
def test_a_table_that_is_not_finite_stays_with_a_record(build, normal, value, chosen):
    """One -inf in a table of attention biases, say, must not stop the work on the other weights."""
    table = normal(8, 32)
    table[3] = value
    feeds = [{"x": normal(4, 32), "i": np.array([0, 1, 2, 7])} for _ in range(4)]
    small = chosen(compress.load(build(MASKED, w=normal(32, 32), t=table), calibration=feeds))
    assert np.array_equal(small.graph.initializers["t"].const_value.numpy(), table, equal_nan=True)
    assert all("infinite" in each.skipped for each in small.changes if each.layer == "bad")
    assert any(each.layer == "good" and each.action for each in small.changes)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC"])
@pytest.mark.parametrize("bits", [4, 8])
def test_blocked_kernels_give_the_same_without_optimizations(build, normal, bits, level):
    """Scales behind a Cast are no constants to a kernel whose graph is not optimized."""
    model = compress.load(build(ROWS.format(k=64, n=64), w=normal(64, 64)))
    small = IntegerWeights(bits=bits)(model)
    assert "Cast" in operators(small)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    opened = ort.InferenceSession(ir.to_proto(small.ir).SerializeToString(), options)
    x = normal(5, 64)
    assert distance(opened.run(None, {"x": x})[0], small.run({"x": x})[0]) < 0.02


@pytest.mark.parametrize("bits", [4, 8])
def test_a_tied_table_is_one_tensor_of_the_file(build, normal, tmp_path, bits):
    table = normal(64, 96)
    model = compress.load(build(TIED["embedding and classifier"], w=table, i=np.array([3])))
    small = Int4Weights(embedding_bits=bits)(model)
    assert sorted(operators(small)) == ["Cast", "GatherBlockQuantized", "MatMulNBits", "Reshape", "Reshape"]
    assert small.changes[-1].bytes_after == table.size * bits // 8 + 2 * table.size // 32
    kept = onnx.load(small.save(tmp_path / "tied.onnx")).graph.initializer
    sizes = [len(each.raw_data) for each in kept if each.data_type == onnx.TensorProto.UINT8]
    assert sizes == [table.size * bits // 8]


@pytest.mark.parametrize(("bits", "stored", "limit"), [(2, 2, 0.6), (3, 4, 0.25), (4, 4, 0.12), (8, 8, 0.01)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, "channel"])
def test_every_number_of_bits(build, normal, bits, stored, limit, symmetric, group_size):
    weight = normal(128, 24)
    model = compress.load(build(ROWS.format(k=128, n=24), w=weight))
    small = IntegerWeights(bits=bits, symmetric=symmetric, group_size=group_size)(model)
    if group_size == "channel":
        stored, limit = max(stored, 4), 1.5 * limit
    assert distance(small.run({"x": np.eye(128, dtype=np.float32)})[0], weight) < limit
    assert small.changes[-1].action.startswith(
        f"{bits}-bit weights" if bits == stored else f"{bits}-bit weights stored in {stored}"
    )
    integers = weight.size * stored // 8
    assert integers < small.weight_bytes <= integers + (5 * 4 * 24 if group_size == 32 else 6 * 24)
    assert small.changes[-1].bytes_after <= small.weight_bytes


def test_scales_of_whole_channels_fuse(build, normal, tmp_path):
    model = compress.load(build(ROWS.format(k=128, n=64), w=normal(128, 64)))
    session(Int4Weights(group_size="channel")(model).ir, optimized_to=tmp_path / "run.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node] == ["MatMulNBits"]


def test_blocked_dequantize_linear_fuses(build, normal, tmp_path):
    model = compress.load(build(ROWS.format(k=128, n=64), w=normal(128, 64)))
    small = Int4Weights(operators="standard")(model)
    assert operators(small) == ["DequantizeLinear", "MatMul"]
    session(small.ir, optimized_to=tmp_path / "run.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node] == ["MatMulNBits"]


@pytest.mark.parametrize("alpha", ["alpha=0.5", "beta=2.0", "transA=1", "transB=1"])
def test_gemm_in_every_form(build, normal, alpha):
    text = f"g (float[32,32] x) => (float[32,32] y) {{ y = Gemm<{alpha}>(x, w, b) }}"
    model = compress.load(build(text, w=normal(32, 32), b=normal(32)))
    x = normal(32, 32)
    assert distance(Int8Weights()(model).run({"x": x})[0], model.run({"x": x})[0]) < 0.02


def test_bodies_of_loops_and_branches_are_left_alone(build, normal):
    text = """g (float[N,32] x, bool c) => (float[N,32] y) {
        h = MatMul(x, w)
        y = If(c)<then_branch = t () => (float[N,32] a) { a = MatMul(h, v) },
                  else_branch = e () => (float[N,32] b) { b = MatMul(h, w) }>
    }"""
    model = compress.load(build(text, w=normal(32, 32), v=normal(32, 32)))
    for chosen in (Int8Weights(), Int8Weights(operators="standard")):
        small = chosen(model)
        for branch in (True, False):
            feeds = {"x": normal(2, 32), "c": np.array(branch)}
            assert distance(small.run(feeds)[0], model.run(feeds)[0]) < 0.03


def test_biases_and_tables_go_to_float16_where_that_is_exact_enough(build, normal):
    text = """g (float[N,32,4,4] x) => (float[N,96,4,4] y) {
        c = Conv(x, w, b) p = Add(c, t) y = Mul(p, s)
    }"""
    model = compress.load(
        build(text, w=normal(96, 32, 1, 1), b=normal(96), t=normal(96, 4, 4), s=1e-9 * normal(96, 4, 4))
    )
    small = Int4Weights()(model)
    stored = {change.layer: change.action for change in small.changes if change.action == "float16"}
    assert set(stored) == {"b", "t"}
    x = normal(2, 32, 4, 4)
    assert distance(small.run({"x": x})[0], model.run({"x": x})[0]) < 0.15


@pytest.mark.parametrize("activation", sorted(FUSED_BEHIND_GEMM))
def test_no_run_decodes_the_weight_of_a_gemm_with_its_activation(build, normal, running, activation):
    """The runtime takes the activation into the Gemm before it looks for weights in few bits."""
    text = f"g (float[N,32] x) => (float[N,16] z) {{ y = Gemm(x, w, b) z = {activation}(y) }}"
    model = compress.load(build(text, w=normal(32, 16), b=normal(16)))
    small = Int8Weights(group_size="channel")(model)
    assert running(small) == ["FusedGemm"]
    assert small.graph.initializers["w.quantized"].dtype == ir.DataType.INT8
