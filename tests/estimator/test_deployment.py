"""What a toolchain makes of a model: the device's number types, or a reason why it does not run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.errors import DoesNotRunError
from compress.estimator import estimate, load


def product(dtype: type, width: int = 64, rows: int = 8) -> onnx.ModelProto:
    """A product of floats with weights of its own."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x, y = (helper.make_tensor_value_info(name, kind, [rows, width]) for name in "xy")
    weight = onnx.numpy_helper.from_array(np.ones((width, width), dtype), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], "g", [x], [y], [weight]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def packed(bits: int, width: int = 64) -> onnx.ModelProto:
    """Weights of few bits beside float32 activations."""
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s"],
        ["y"],
        domain="com.microsoft",
        K=width,
        N=width,
        bits=bits,
        block_size=32,
    )
    blocks = width // 32
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, width])],
        [
            onnx.numpy_helper.from_array(np.zeros((width, blocks, 4 * bits), np.uint8), "w"),
            onnx.numpy_helper.from_array(np.ones(width * blocks, np.float32), "s"),
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("hardware", ["eyeriss-v1", "tpu-v4i", "h200", "rtx-3090", "phone-npu"])
def test_float32_is_deployed_in_sixteen_bits(hardware: str) -> None:
    wide, narrow = (estimate(product(dtype), hardware) for dtype in (np.float32, np.float16))
    assert wide.total == narrow.total
    assert list(wide.runs_as) == ["float32"]


def test_a_device_that_computes_in_float32_only_widens_float16() -> None:
    wide, narrow = (estimate(product(dtype), "stm32u575") for dtype in (np.float32, np.float16))
    assert wide.total == narrow.total
    assert (wide.runs_as, narrow.runs_as) == ({}, {"float16": "fp32"})


def test_a_chip_of_wide_integers_saves_nothing_with_narrow_ones() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.INT8, [8, 64])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [8, 64])
    weight = onnx.numpy_helper.from_array(np.ones((64, 64), np.int8), "w")
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    found = estimate(model, "eyeriss-v1")
    assert found.runs_as == {"int8": "int16"}
    assert (
        found.total.energy["compute"] == estimate(product(np.float16), "eyeriss-v1").total.energy["compute"]
    )


def test_weights_keep_the_bits_that_the_device_decodes() -> None:
    kept = {bits: estimate(packed(bits), "tpu-v4i") for bits in (2, 4, 8)}
    traffic = {bits: found.total.dram_bytes for bits, found in kept.items()}
    assert traffic[8] - traffic[4] == 64 * 64 / 2
    assert traffic[2] == traffic[4]  # it decodes no two bits: they are stored in four
    assert kept[4].runs_as == {"float32": "bf16"}
    loaded = estimate(packed(4), "phone-npu")  # which decodes none
    assert loaded.total.dram_bytes == estimate(product(np.float16), "phone-npu").total.dram_bytes
    assert loaded.runs_as == {"float32": "fp16", "4-bit weights": "fp16"}


def test_floats_do_not_run_on_integers() -> None:
    with pytest.raises(
        DoesNotRunError, match=r"^does not run on gap9: layer 'fc' multiplies float32, .* int8"
    ):
        estimate(product(np.float32), "gap9")


def test_weights_must_fit_the_flash_and_results_the_memory() -> None:
    with pytest.raises(DoesNotRunError, match=r"its weights take 4\.19 MB, and flash holds 2\.10 MB"):
        estimate(product(np.float32, 1024), "stm32l4r5")
    with pytest.raises(
        DoesNotRunError, match=r"at layer 'fc' its results take 1\.02 MB, and sram holds 655 kB"
    ):
        estimate(product(np.float32, 64, 2000), "stm32l4r5")
    assert estimate(product(np.float32, 64, 1000), "stm32l4r5").total.macs == 1000 * 64 * 64


def test_the_graph_of_onnxruntime_is_deployed_as_it_is() -> None:
    assert load("cpu").executes == "onnxruntime"
    assert estimate(product(np.float16), "cpu").runs_as == {}
