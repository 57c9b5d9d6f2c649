"""Estimates of whole graphs: quantized, pruned, sparse, other tools' files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from compress.errors import HardwareError, ModelError
from compress.estimator import Cost, Estimate, estimate, kernels, load, ratio
from compress.results import HardwareScore, Latency


def mlp(width: int = 256, dtype: type = np.float32) -> onnx.ModelProto:
    """Two linear layers with a Relu between."""
    generator = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(generator.normal(size=(width, width)).astype(dtype), f"w{i}")
        for i in range(2)
    ]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w1"], ["y"], name="second"),
    ]
    x, y = (helper.make_tensor_value_info(name, kind, ["batch", width]) for name in "xy")
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def qdq(text_weights: str = "int8") -> onnx.ModelProto:
    """The same, every tensor through Q and DQ, weights stored as integers."""
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    mlp (float[batch, 256] x) => (float[batch, 256] y)
    <float s = {{0.1}}, uint8 z = {{0}}, {text_weights}[256, 256] w0, {text_weights}[256, 256] w1> {{
        xq = QuantizeLinear(x, s, z)
        xd = DequantizeLinear(xq, s, z)
        d0 = DequantizeLinear(w0, s)
        h = MatMul(xd, d0)
        r = Relu(h)
        rq = QuantizeLinear(r, s, z)
        rd = DequantizeLinear(rq, s, z)
        d1 = DequantizeLinear(w1, s)
        y = MatMul(rd, d1)
    }}"""
    model = onnx.parser.parse_model(text)
    for name in ("w0", "w1"):
        kind = getattr(TensorProto, text_weights.upper())
        tensor = helper.make_tensor(name, kind, [256, 256], np.ones(65536, np.int8))
        for old in [t for t in model.graph.initializer if t.name == name]:
            model.graph.initializer.remove(old)
        model.graph.initializer.append(tensor)
    for value in [v for v in model.graph.value_info if v.name in ("w0", "w1")]:
        model.graph.value_info.remove(value)
    return model


def layer(estimated: Estimate, name: str) -> Cost:
    return next(x.cost for x in estimated.layers if x.name == name)


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    proto = mlp()
    onnx.save(proto, tmp_path / "m.onnx")
    sources = (proto, tmp_path / "m.onnx", str(tmp_path / "m.onnx"), ir.from_proto(proto))
    joules = {estimate(source, "eyeriss-v1").total.energy_joules for source in sources}
    assert len(joules) == 1


def test_totals_are_the_sum_of_layers() -> None:
    estimated = estimate(mlp(), "tpu-v4i")
    total = estimated.total
    assert total.energy_joules == pytest.approx(sum(x.cost.energy_joules for x in estimated.layers))
    assert total.macs == 2 * 256 * 256
    assert total.dram_bytes == total.bytes_moved["dram"]


def test_relu_is_fused_and_its_result_not_moved() -> None:
    estimated = estimate(mlp(), "eyeriss-v1", shapes={"x": [4, 256]})
    assert [x.name for x in estimated.layers] == ["first", "second"]
    assert estimated.total.dram_bytes == 2 * (2 * 256 * 256 + 4 * 4 * 256)  # 16 bits wide


def test_zeros_shrink_what_the_chip_compresses_and_gates() -> None:
    dense = estimate(mlp(dtype=np.float16), "eyeriss-v1", shapes={"x": [64, 256]})
    sparse = estimate(mlp(dtype=np.float16), "eyeriss-v1", shapes={"x": [64, 256]}, zeros={"r": 0.75})
    assert layer(sparse, "first").dram_bytes < layer(dense, "first").dram_bytes
    assert layer(sparse, "second").energy["compute"] < 0.5 * layer(dense, "second").energy["compute"]


@pytest.mark.parametrize("hardware", ["tpu-v4i", "cpu-arm", "cpu"])
def test_fewer_bits_cost_less(hardware: str) -> None:
    float32 = estimate(mlp(), hardware).total
    int8 = estimate(qdq(), hardware).total
    assert int8.energy_joules < float32.energy_joules
    assert int8.dram_bytes < 0.51 * float32.dram_bytes
    assert int8.macs == float32.macs


def test_qdq_is_integer_arithmetic_on_an_accelerator() -> None:
    estimated = estimate(qdq(), "tpu-v4i")
    assert [x.op_type for x in estimated.layers] == ["QuantizeLinear", "MatMul", "MatMul"]
    # Input as bf16, its codes live on chip; weights as bytes; the result as bf16.
    assert estimated.total.dram_bytes == pytest.approx(2 * 256 + 2 * 256 * 256 + 2 * 256, rel=0.01)


def test_stored_bits_count_on_the_way() -> None:
    int8, int4 = (estimate(qdq(kind), "tpu-v4i").total for kind in ("int8", "int4"))
    assert int4.dram_bytes == pytest.approx(int8.dram_bytes - 65536, rel=0.01)
    assert int4.energy_joules < int8.energy_joules


def test_packed_weights_count_with_their_scales() -> None:
    k, n, block = 256, 128, 32
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=k, N=n, bits=4, block_size=block
    )
    packed = np.zeros((n, k // block, block // 2), np.uint8)
    scales = np.ones(n * k // block, np.float32)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", n])],
        [onnx.numpy_helper.from_array(packed, "w"), onnx.numpy_helper.from_array(scales, "s")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    total = estimate(helper.make_model(graph, opset_imports=opsets, ir_version=10), "tpu-v4i").total
    assert total.macs == k * n
    assert total.dram_bytes == packed.nbytes + scales.nbytes + 2 * (k + n)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_files_of_onnxruntimes_quantizer(tmp_path: Path, form: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"x": np.ones((2, 256), np.float32)}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    onnx.save(mlp(), tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader(), quant_format=QuantFormat[form])
    for hardware in ("tpu-v4i", "cpu"):
        before, after = (estimate(tmp_path / f"{kind}.onnx", hardware) for kind in ("float", "int8"))
        assert after.uncosted == {}
        assert after.total.macs == before.total.macs
        assert after.total.dram_bytes < 0.51 * before.total.dram_bytes
        if hardware == "tpu-v4i":  # a processor's package has one power for all that it does
            assert after.total.energy["compute"] < before.total.energy["compute"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_files_of_onnxruntimes_weight_only_quantizer(tmp_path: Path, form: str) -> None:
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, quant_format=QuantFormat[form])
    quantizer = MatMulNBitsQuantizer(mlp(), algo_config=config)
    quantizer.process()
    packed = quantizer.model.model
    for hardware in ("tpu-v4i", "cpu"):
        before, after = (estimate(model, hardware).total for model in (mlp(), packed))
        assert after.macs == before.macs
        assert after.dram_bytes < 0.35 * before.dram_bytes


def test_measured_seconds_replace_modelled_ones() -> None:
    free, timed = (estimate(mlp(), "eyeriss-v1", seconds=s) for s in (None, {"first": 1.0}))
    assert layer(timed, "first").seconds == 1.0
    assert layer(timed, "first").energy["static"] == pytest.approx(0.2093)
    assert layer(timed, "second") == layer(free, "second")


def test_a_measured_run_tells_the_energy_on_this_machine() -> None:
    original, variant = (Latency(median=m, runs=9, ratio=m, log_sd=s) for m, s in ((1.0, 0.0), (0.8, 0.02)))
    base, ours = (estimate(mlp(), "cpu", latency=each) for each in (original, variant))
    assert base.timed and base.total.seconds == pytest.approx(1.0)
    watts = load("cpu").package_watts
    assert watts and ours.total.energy["package"] == pytest.approx(0.8 * watts.value)
    assert set(ours.total.energy) == {"package", "dram"}
    found = ratio(ours.total, base.total)
    assert found and found.value == pytest.approx(0.8, abs=1e-4)
    assert np.log(found.high / found.low) == pytest.approx(2 * 1.645 * 0.02, rel=0.05)
    assert not estimate(mlp(), "tpu-v4i", latency=original).timed


def test_a_measured_run_is_shared_where_no_kernels_were_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "of_this_machine", lambda: None)
    rated = estimate(mlp(), "cpu")
    found = estimate(mlp(), "cpu", latency=Latency(median=1.0, runs=9, ratio=1.0))
    assert found.total.seconds == pytest.approx(1.0)
    assert set(rated.total.energy) > {"compute", "static"} and set(found.total.energy) == {"package", "dram"}
    longer = layer(rated, "first").seconds / rated.total.seconds
    assert layer(found, "first").seconds == pytest.approx(longer)


def test_score_is_what_results_store() -> None:
    score = estimate(mlp(), "cpu").score()
    assert HardwareScore.model_validate_json(score.model_dump_json()) == score
    assert len(score.layers) >= 2


def test_an_operator_without_known_arithmetic_is_named_with_its_share() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 21]> g (float[2, 64, 1] x) => (float[2, 64, 2] y)'
        " { h = Relu(x) \n y = DFT(h) }"
    )
    assert estimate(model, "tpu-v4i").uncosted == {"DFT": pytest.approx(0.6)}


def test_an_operator_that_nothing_knows_is_an_error() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n] x) => (float[n] y) { y = Mystery(x) }'
    )
    with pytest.raises(ModelError, match="shape of 'y'"):
        estimate(model, "tpu-v4i")


def test_messages_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="did you mean 'eyeriss-v1'"):
        estimate(mlp(), "eyeris-v1")
    with pytest.raises(ModelError, match="no such value"):
        estimate(mlp(), "eyeriss-v1", zeros={"nothing": 0.5})
    with pytest.raises(ModelError, match=r"1\.5 is not a fraction"):
        estimate(mlp(), "eyeriss-v1", zeros={"h": 1.5})
    with pytest.raises(ModelError, match="did you mean 'first'"):
        estimate(mlp(), "eyeriss-v1", seconds={"frist": 1})
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"empty\.onnx: is not an ONNX file"):
        estimate(tmp_path / "empty.onnx", "tpu-v4i")
    with pytest.raises(ModelError, match=r"none\.onnx"):
        estimate(tmp_path / "none.onnx", "tpu-v4i")
    (tmp_path / "bad.yaml").write_text("id: mine\n")
    with pytest.raises(HardwareError, match=r"bad\.yaml: title"):
        load(str(tmp_path / "bad.yaml"))


def test_importing_needs_no_torch() -> None:
    code = "import sys; from compress.estimator import estimate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
