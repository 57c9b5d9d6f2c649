"""What an estimate costs: weights of a large model are looked at in samples, and never loaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from compress.estimator import estimate
from compress.estimator.sparsity import zeros

HIDDEN, INNER, WORDS = 8192, 65536, 262144


def external(path: Path, name: str, offset: int, *shape: int) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": path.name, "offset": offset, "length": 2 * int(np.prod(shape))}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A block of 6.4 GB between two normalizations that only ONNX Runtime knows; its file has no content."""
    data, weights, offset = tmp_path / "weights.data", [], 0
    for name, shape in (("up", (HIDDEN, INNER)), ("down", (INNER, HIDDEN)), ("head", (HIDDEN, WORDS))):
        weights.append(external(data, name, offset, *shape))
        offset += 2 * shape[0] * shape[1]
    with data.open("wb") as file:
        file.truncate(offset)
    scale = onnx.numpy_helper.from_array(np.ones(HIDDEN, np.float16), "scale")
    nodes = [
        helper.make_node("SimplifiedLayerNormalization", ["x", "scale"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "up"], ["u"]),
        helper.make_node("Relu", ["u"], ["r"]),
        helper.make_node("MatMul", ["r", "down"], ["d"]),
        helper.make_node("SimplifiedLayerNormalization", ["d", "scale"], ["m"], axis=-1),
        helper.make_node("MatMul", ["m", "head"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, HIDDEN])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, WORDS])
    graph = helper.make_graph(nodes, "block", [x], [y], [scale, *weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "large.onnx",
    )
    return tmp_path / "large.onnx"


@pytest.mark.parametrize(("hardware", "width"), [("phone-npu", 2), ("cpu", 4)])
def test_weights_of_a_large_model_are_not_loaded(
    large: Path, hardware: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ir.ExternalTensor.numpy

    def small(tensor: ir.ExternalTensor) -> Any:
        assert tensor.nbytes < 1e6, f"{tensor.name} was read"
        return whole(tensor)

    monkeypatch.setattr(ir.ExternalTensor, "numpy", small)
    found = estimate(large, hardware).total
    weights = HIDDEN * (2 * INNER + WORDS)
    assert found.macs == weights
    # ONNX Runtime multiplies halves as floats on a processor, and keeps the weights so.
    assert width * weights <= found.dram_bytes <= 1.01 * width * weights


def in_file(path: Path, array: np.ndarray) -> ir.ExternalTensor:
    path.write_bytes(b"before" + array.tobytes())
    return ir.ExternalTensor(
        path.name,
        6,
        array.nbytes,
        ir.DataType.FLOAT16,
        shape=ir.Shape(array.shape),
        name="w",
        base_dir=path.parent,
    )


def test_samples_tell_zeros_of_a_large_weight(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((1001, 768)).astype(np.float16) + np.float16(9)
    scattered = dense * (rng.random(dense.shape) < 0.3)
    rows = dense * (rng.random((1001, 1)) < 0.3)
    for array, within in ((dense, 0.0), (scattered, 0.015), (rows, 0.05)):
        found, two_of_four = zeros(in_file(tmp_path / "w", array))
        assert found == pytest.approx(1 - np.count_nonzero(array) / array.size, abs=within)
        assert not two_of_four


@pytest.mark.parametrize("shape", [(1024, 260), (260, 1024), (128, 128, 3, 3)])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("where", ["file", "memory"])
def test_samples_tell_two_of_four(tmp_path: Path, shape: tuple[int, ...], axis: int, where: str) -> None:
    rng = np.random.default_rng(0)
    groups = np.moveaxis(np.ones(shape, np.float16), axis, -1)
    kept = rng.permuted(np.tile([1, 1, 0, 0], groups.size // 4).reshape(-1, 4), axis=1).reshape(groups.shape)
    pruned = np.ascontiguousarray(np.moveaxis(groups * kept, -1, axis), np.float16)
    made = partial(in_file, tmp_path / "w") if where == "file" else ir.tensor
    assert zeros(made(pruned)) == (pytest.approx(0.5, abs=0.015), True)
    shuffled = rng.permuted(pruned.reshape(-1)).reshape(shape)
    assert zeros(made(shuffled)) == (pytest.approx(0.5, abs=0.015), False)


def test_codes_of_four_bits_are_counted_in_their_file(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 16, (512, 1024)).astype(np.uint8)
    codes[:, 1::4] = codes[:, 2::4] = 0
    packed = codes[:, ::2] | codes[:, 1::2] << 4
    (tmp_path / "w").write_bytes(packed.tobytes())
    tensor = ir.ExternalTensor(
        "w", 0, packed.nbytes, ir.DataType.UINT4, shape=ir.Shape(codes.shape), name="w", base_dir=tmp_path
    )
    found, two_of_four = zeros(tensor)
    assert found == pytest.approx(np.mean(codes == 0), abs=0.015)
    assert two_of_four
