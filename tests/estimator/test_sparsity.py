"""Zeros in weights, entropy-coded weights, and costs that rise with bits, sizes and density."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pydantic import ValidationError

from compress import codec
from compress.errors import HardwareError
from compress.estimator import Profile, estimate, ids, load
from compress.estimator.coded import Coded, by_entropy, entropy_bytes
from compress.estimator.cost import format_ratio
from compress.estimator.hardware import Number


def product(weight: np.ndarray, rows: int = 8) -> onnx.ModelProto:
    """A matrix product with a given weight."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    x = helper.make_tensor_value_info("x", kind, [rows, weight.shape[0]])
    y = helper.make_tensor_value_info("y", kind, [rows, weight.shape[1]])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [x],
        [y],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def with_format(profile: Profile, chosen: str) -> Profile:
    outer = profile.memories[0].model_copy(update={"weight_format": chosen})
    return profile.model_copy(update={"memories": (outer, *profile.memories[1:])})


def test_formats() -> None:
    assert format_ratio("run-length", 0.5, 16) == pytest.approx(2 / 3)
    assert format_ratio("run-length", 0.1, 16) == 1.0
    assert format_ratio("bitmap", 0.75, 8) == pytest.approx(0.375)
    assert format_ratio("two-of-four", 0.5, 8) == pytest.approx(0.625)
    assert format_ratio("compressed-columns", 0.5, 8) == pytest.approx(0.75)


def test_two_of_four_halves_the_work_and_most_of_the_weights() -> None:
    weight = np.ones((256, 256), np.float16)
    pruned = weight.copy()
    pruned[1::4] = pruned[3::4] = 0
    dense, sparse = (estimate(product(w), "h200").total for w in (weight, pruned))
    saved = dense.dram_bytes - sparse.dram_bytes
    assert saved == pytest.approx(weight.nbytes * (1 - 0.5 - 1 / 16))
    assert sparse.energy["compute"] == pytest.approx(dense.energy["compute"] / 2)
    scattered = weight.copy()
    scattered[:128] = 0  # as many zeros, in the wrong places
    assert estimate(product(scattered), "h200").total == dense


def test_skipped_weights_save_time_and_energy() -> None:
    profile = load("phone-npu").model_copy(update={"zero_operands": frozenset(["weights"])})
    weight = np.ones((1024, 1024), np.float16)
    pruned = weight.copy()
    pruned[:, ::2] = 0
    dense, sparse = (estimate(product(w, 512), profile).total for w in (weight, pruned))
    assert sparse.energy["compute"] == pytest.approx(dense.energy["compute"] / 2)
    assert sparse.seconds < dense.seconds


def test_events_grow_with_activity_and_steps() -> None:
    weight = np.ones((64, 64), np.int8).astype(np.float32)
    quiet, busy = (
        estimate(product(weight), "loihi1", zeros={"x": zeros}).total.energy["compute"]
        for zeros in (0.9, 0.5)
    )
    assert busy == pytest.approx(5 * quiet)


def test_coded_weights_save_outside_their_decoder() -> None:
    model = product(np.ones((1024, 1024), np.float32))
    plain = estimate(model, "tpu-v4i").total
    load, dram, glb, rf, local = (
        estimate(model, "tpu-v4i", coded=Coded({"w": 1_000_000}, place)).total
        for place in ("load", "dram", "glb", "rf", "local")
    )
    assert load == plain
    saved = 2 * 1024 * 1024 - 1_000_000  # as bf16
    order = ("dram", "cmem", "local")
    for one, coded in ((dram, ["dram"]), (glb, ["dram", "cmem"]), (rf, list(order)), (local, list(order))):
        less = {name: plain.bytes_moved[name] - one.bytes_moved[name] for name in order}
        assert less == {name: saved if name in coded else 0 for name in order}
        assert one.energy["compute"] > plain.energy["compute"]  # the decoder's
    with pytest.raises(HardwareError, match="no memory"):
        estimate(model, "tpu-v4i", coded=Coded({"w": 1}, "l9"))


def test_weights_decoded_further_in_are_decoded_more_often() -> None:
    model = product(np.ones((4096, 4096), np.float32), rows=512)
    coded = [estimate(model, "cpu-arm", coded=Coded({"w": 4e6}, place)).total for place in ("dram", "rf")]
    assert coded[0].energy["compute"] < coded[1].energy["compute"]
    assert coded[0].bytes_moved["l1"] > coded[1].bytes_moved["l1"]


def test_entropy_of_codes() -> None:
    codes = np.repeat(np.arange(4, dtype=np.int8), 1024)
    assert entropy_bytes(ir.tensor(codes)) == pytest.approx(4096 * 2 / 8)
    assert entropy_bytes(ir.tensor(codes.astype(np.float32))) < 4096 * 4
    found = by_entropy(ir.from_proto(product(np.ones((64, 64), np.float32))), "dram")
    assert found.bytes == {"w": 0.0}


def test_a_packed_file_saves_traffic_only_where_the_hardware_decodes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((1024, 1024)) * (rng.random((1024, 1024)) < 0.1)).astype(np.float32)
    onnx.save(product(weight), tmp_path / "model.onnx")
    codec.pack(tmp_path / "model.onnx", tmp_path / "model.packed")
    size = codec.coded_bytes(tmp_path / "model.packed")["w"]
    software = load("tpu-v4i")
    hardware = Profile.model_validate({**dict(software), "decode_at": "dram"})
    plain = estimate(tmp_path / "model.onnx", hardware).total
    assert estimate(tmp_path / "model.packed", software).total == plain
    coded = estimate(tmp_path / "model.packed", hardware).total
    assert plain.dram_bytes - coded.dram_bytes == pytest.approx(weight.nbytes / 2 - size)  # as bf16
    assert coded.energy["dram"] < plain.energy["dram"]
    assert coded.energy["compute"] > plain.energy["compute"]  # the decoder's operations
    with pytest.raises(ValidationError, match="no place 'l9'"):
        Profile.model_validate({**dict(software), "decode_at": "l9"})


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ids()),
    st.sampled_from([np.int8, np.float16, np.float32]),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 64),
)
def test_fewer_bits_and_channels_never_cost_more(
    hardware: str, kind: type, inputs: int, outputs: int, rows: int
) -> None:
    floats = load(hardware).runs_in(Number("float", 32))
    if hardware == "cpu" or (kind is not np.int8 and floats is None):
        return  # it scores what the runtime makes of it, and that need not be cheaper; or it has no floats
    whole = estimate(_typed(kind, inputs, outputs, rows), hardware).total
    smaller = estimate(_typed(kind, inputs, -(-outputs // 2), rows), hardware).total
    assert smaller.energy_joules <= whole.energy_joules * (1 + 1e-9)
    assert smaller.dram_bytes <= whole.dram_bytes
    if kind is np.float16:
        wide = estimate(_typed(np.float32, inputs, outputs, rows), hardware).total
        assert whole.energy_joules <= wide.energy_joules * (1 + 1e-9)


def _typed(kind: type, inputs: int, outputs: int, rows: int) -> onnx.ModelProto:
    if kind is not np.int8:
        return product(np.ones((inputs, outputs), kind), rows)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.INT8, [rows, inputs])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [rows, outputs])
    weight = onnx.numpy_helper.from_array(np.ones((inputs, outputs), np.int8), "w")
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_more_zeros_never_cost_more(one: float, other: float) -> None:
    model = product(np.ones((64, 64), np.float16), 64)
    few, many = sorted((one, other))
    for hardware in ("eyeriss-v1", "phone-npu"):
        dense, sparse = (estimate(model, hardware, zeros={"x": z}).total for z in (few, many))
        assert sparse.energy_joules <= dense.energy_joules * (1 + 1e-9)
