import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

import compress
from compress import codec
from compress.codec import container
from compress.codec.coders import Coder
from compress.errors import ModelError, StoreError
from compress.model import Model

Build = Callable[..., onnx.ModelProto]


def packed_and_back(path: Path) -> Path:
    """Pack a model, restore it in a folder of its own, and see that the files are the same."""
    packed = path.with_suffix(".packed")
    codec.pack(path, packed)
    restored = codec.unpack(packed, path.parent / "restored" / path.name)
    for file in [path, *path.parent.glob(f"{path.name}.data*")]:
        assert (restored.parent / file.name).read_bytes() == file.read_bytes()
    return packed


def names(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


def outputs(session: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a session."""
    found: list[np.ndarray] = session.run(None, feeds)
    return found


def test_a_model_is_restored_bit_for_bit_and_runs(small_model: Model, tmp_path: Path) -> None:
    path = small_model.save(tmp_path / "model.onnx")
    packed = packed_and_back(path)
    assert packed.stat().st_size < path.stat().st_size
    feeds = next(small_model.batches())
    for ours, theirs in zip(outputs(compress.open(packed), feeds), small_model.run(feeds), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def many(normal: Callable[..., np.ndarray]) -> onnx.ModelProto:
    """A model that keeps weights wherever a model can: fields, constants, subgraphs, small types."""
    kinds = ["raw", "again", "floats", "half", "brain", "nibbles", "ints"]
    w = normal(32, 32)
    tensors = [
        numpy_helper.from_array(w, "raw"),
        numpy_helper.from_array(w, "again"),
        helper.make_tensor("floats", TensorProto.FLOAT, w.shape, w.ravel()),
        numpy_helper.from_array(w.astype(np.float16), "half"),
        helper.make_tensor("brain", TensorProto.BFLOAT16, w.shape, w.ravel()),
        helper.make_tensor("nibbles", TensorProto.INT4, w.shape, np.arange(w.size) % 16 - 8),
        helper.make_tensor("ints", TensorProto.INT8, w.shape, np.arange(w.size) % 256 - 128),
    ]
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "inner"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", 1, None)],
        [numpy_helper.from_array(2 * w, "inner")],
    )
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(3 * w, "k"))
    other = helper.make_graph(
        [constant, helper.make_node("Mul", ["x", "k"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", 1, None)],
    )
    casts = [helper.make_node("Cast", [name], [f"{name}_f"], to=1) for name in kinds]
    casts[5] = helper.make_node("DequantizeLinear", ["nibbles", "scale"], ["nibbles_f"])
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    total = helper.make_node("Sum", ["y", *(f"{name}_f" for name in kinds)], ["z"])
    graph = helper.make_graph(
        [*casts, chosen, total],
        "g",
        [helper.make_tensor_value_info("x", 1, [32, 32]), helper.make_tensor_value_info("c", 9, [])],
        [helper.make_tensor_value_info("z", 1, None)],
        [*tensors, numpy_helper.from_array(np.float32(0.5), "scale")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("external", [None, 0, 2048])
def test_weights_are_found_wherever_they_are(
    many: onnx.ModelProto, condition: bool, external: int | None, tmp_path: Path
) -> None:
    import onnxruntime as ort

    path = tmp_path / "model.onnx"
    feeds = {"x": np.ones((32, 32), np.float32), "c": np.array(condition)}
    expected = outputs(ort.InferenceSession(many.SerializeToString()), feeds)
    if external is None:
        onnx.save(many, path)
    else:
        onnx.save(many, path, save_as_external_data=True, location="model.onnx.data", size_threshold=external)
    packed = packed_and_back(path)
    for ours, theirs in zip(outputs(compress.open(packed), feeds), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_equal_weights_are_coded_once(many: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(many, tmp_path / "model.onnx")
    coded = [stream.name for stream in codec.pack(tmp_path / "model.onnx", tmp_path / "packed").streams]
    assert "raw" in coded
    assert "again" not in coded


def test_large_weights_are_cut_into_chunks(
    build: Build, normal: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (codec.packing, container):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    weight = normal(60, 11)
    onnx.save(
        build("g (float[N,60] x) => (float[N,11] y) { y = MatMul(x, w) }", w=weight), tmp_path / "m.onnx"
    )
    packed = packed_and_back(tmp_path / "m.onnx")
    x = normal(3, 60)
    np.testing.assert_allclose(outputs(compress.open(packed), {"x": x})[0], x @ weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("external", [False, True])
def test_channels_are_told_apart_across_chunks(
    build: Build, external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (codec.packing, container):
        monkeypatch.setattr(module, "CHUNK_BYTES", 30_001)
    wide = np.arange(40) % 2 * 120
    weight = np.random.default_rng(0).integers(-1 - wide, 2 + wide, (2000, 40)).astype(np.int8)
    model = build("g (float[N,2000] x) => (float[N,40] y) { f = Cast<to=1>(w)\n y = MatMul(x, f) }", w=weight)
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=external, location="m.onnx.data", size_threshold=0
    )
    packed = packed_and_back(tmp_path / "m.onnx")
    with container.Reader(packed) as reader:
        stream = next(each for each in reader.index.streams if each.name == "w")
    assert [coder for coder, _, _ in stream.chunks] == [Coder.CLUSTERS] * 3
    x = np.ones((1, 2000), np.float32)
    np.testing.assert_array_equal(outputs(compress.open(packed), {"x": x})[0], x @ weight)


def test_the_container_is_safetensors_with_its_provenance(mlp: Model, tmp_path: Path) -> None:
    codec.pack(mlp.save(tmp_path / "model.onnx"), tmp_path / "packed")
    assert set(safetensors.numpy.load_file(tmp_path / "packed")) == {"weights", "index"}
    with safetensors.safe_open(tmp_path / "packed", "np") as file:
        said = json.loads(file.metadata()["compress"])
    assert (said["format"], said["model"]) == (1, "model.onnx")
    assert said["written_by"].startswith("compress ")


@pytest.mark.parametrize("content", [b"", b"hello world, this is no model", b"\x08\x0a", bytes(100)])
def test_what_is_no_onnx_file_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: is not an ONNX file"):
        codec.pack(tmp_path / "model.onnx", tmp_path / "packed")
    assert names(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "missing.data"])
def test_external_data_stay_in_the_models_folder(
    many: onnx.ModelProto, location: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(many, folder / "m.onnx", save_as_external_data=True, location="x.data", size_threshold=0)
    moved = onnx.load(folder / "m.onnx", load_external_data=False)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    (folder / "m.onnx").write_bytes(moved.SerializeToString())
    with pytest.raises(ModelError, match=r"outside of its folder|are missing"):
        codec.pack(folder / "m.onnx", folder / "packed")


def test_data_of_another_model_are_not_lost(many: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(many, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    packed = packed_and_back(path)
    codec.unpack(packed, tmp_path / "restored" / "twice.onnx")  # the data are there, and are the same
    data = tmp_path / "restored" / "model.onnx.data"
    data.write_bytes(b"of another model")
    with pytest.raises(StoreError, match="holds other data"):
        codec.unpack(packed, tmp_path / "restored" / "model.onnx")
    assert data.read_bytes() == b"of another model"


def test_no_file_takes_the_place_of_another(many: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(many, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    for taken in (path, tmp_path / "model.onnx.data"):
        with pytest.raises(StoreError, match="is a file of the model"):
            codec.pack(path, taken)
    codec.pack(path, tmp_path / "packed")
    with pytest.raises(StoreError, match="has this name"):
        codec.unpack(tmp_path / "packed", tmp_path / "restored" / "model.onnx.data")


def test_what_cannot_be_written_leaves_nothing(mlp: Model, tmp_path: Path) -> None:
    path = mlp.save(tmp_path / "model.onnx")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        codec.pack(path, tmp_path / "file" / "packed")
    codec.pack(path, tmp_path / "packed")
    with pytest.raises(StoreError):
        codec.unpack(tmp_path / "packed", tmp_path / "file" / "model.onnx")
    assert names(tmp_path) == ["file", "model.onnx", "packed"]
