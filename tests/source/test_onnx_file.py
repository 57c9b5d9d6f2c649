"""ONNX files and protos: checked before anything else reads them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.external_data_helper import set_external_data

import compress
from compress.errors import ModelError
from compress.graph.session import session


@pytest.fixture
def linear(build, normal):
    """``relu(x @ w)`` in an opset, with w [32, 32]."""
    weight = normal(32, 32)

    def make(opset=21):
        return build("g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w) y = Relu(h) }", opset, w=weight)

    return make


@pytest.fixture
def external(tmp_path, linear):
    """Write that model with its weight in another file; return the model's path."""

    def write(location="w.bin", *, opset=21, size=4096, **fields):
        proto = linear(opset)
        tensor = proto.graph.initializer[0]
        data = tensor.raw_data
        set_external_data(tensor, location)
        for name, value in fields.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = name, value
        tensor.ClearField("raw_data")
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "w.bin").write_bytes(data[:size])
        onnx.save(proto, folder / "model.onnx")
        return folder / "model.onnx"

    return write


def test_strings_may_be_weights(tmp_path, build):
    words = onnx.helper.make_tensor("w", onnx.TensorProto.STRING, [2], [b"one", b"two"])
    proto = build("g (string[2] x) => (bool[2] y) { y = Equal(x, w) }", opset=19)
    proto.graph.initializer.append(words)
    onnx.save(proto, tmp_path / "words.onnx")
    model = compress.load(tmp_path / "words.onnx")
    assert model.run({"x": np.array(["one", "three"], object)})[0].tolist() == [True, False]


def test_a_file_cut_anywhere_is_refused(tmp_path, linear):
    content = linear().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in [*range(0, 200, 7), *range(200, len(content), 311), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"cut\.onnx: (holds no graph|is not)"):
            compress.load(path)


@pytest.mark.parametrize("content", [b"", b"hello world" * 50, b"\x00" * 64])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "no.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"no\.onnx: (holds no graph|is not an ONNX file)"):
        compress.load(path)


def test_invalid_graphs_are_refused(tmp_path, build):
    unknown = build("g (float[N] x) => (float[N] y) { y = Foo(x) }")
    with pytest.raises(ModelError, match=r"not valid ONNX: No Op registered for Foo"):
        compress.load(unknown)
    onnx.save(unknown, tmp_path / "foo.onnx")
    with pytest.raises(ModelError, match=r"foo\.onnx: is not valid ONNX: No Op registered for Foo"):
        compress.load(tmp_path / "foo.onnx")
    with pytest.raises(ModelError, match="not valid ONNX"):
        compress.load(onnx.ModelProto())
    with pytest.raises(ModelError, match=r"nowhere\.onnx: no such file or folder"):
        compress.load("nowhere.onnx", home=tmp_path)
    with pytest.raises(ModelError, match="list is not a model"):
        compress.load([])


@pytest.mark.parametrize("opset", [17, 21])
def test_external_data_come_in_and_go_out(external, opset, tmp_path, normal):
    model = compress.load(external(opset=opset, offset="0", length="4096"))
    feeds = {"x": normal(3, 32)}
    expected = ort.InferenceSession(external(opset=opset)).run(None, feeds)[0]
    np.testing.assert_allclose(model.run(feeds)[0], expected, rtol=1e-5, atol=1e-5)
    saved = model.save(tmp_path / "elsewhere" / "whole.onnx")
    np.testing.assert_allclose(session(saved).run(None, feeds)[0], expected, rtol=1e-5, atol=1e-5)


def test_external_data_that_are_missing_or_cut_are_refused(external):
    path = external()
    (path.parent / "w.bin").unlink()
    with pytest.raises(ModelError, match="external data of 'w' are missing"):
        compress.load(path)
    for size, fields in [
        (4095, {}),
        (100, {"length": "4096"}),
        (4096, {"length": "100"}),
        (4096, {"offset": "8"}),
    ]:
        with pytest.raises(ModelError, match="external data of 'w' are cut short"):
            compress.load(external(size=size, **fields))
    for fields in ({"length": "x"}, {"offset": "-8"}):
        with pytest.raises(ModelError, match="offset and length must be numbers"):
            compress.load(external(**fields))


def test_external_data_may_not_leave_the_folder(external, tmp_path):
    outside = tmp_path / "outside.bin"
    outside.write_bytes(bytes(4096))
    path = external()
    (path.parent / "link.bin").symlink_to(outside)
    for location in ("../outside.bin", str(outside), "link.bin", "sub/../../outside.bin"):
        with pytest.raises(ModelError, match="lie outside the model's folder"):
            compress.load(external(location))


@pytest.mark.parametrize("opset", range(10, 21))
def test_opsets_of_ten_years_come_in(build, opset, normal):
    proto = build(
        """g (float[N,32,4,4] x) => (float[N,8] y) {
            w = Constant<value = float[1] {0.5}>()
            h = Mul(x, w) p = GlobalAveragePool(h) q = Flatten(p) s = Softmax(q) y = Gemm<transB=1>(s, v, b)
        }""",
        opset,
        ir_version=5,
        v=normal(8, 32),
        b=normal(8),
    )
    feeds = {"x": normal(2, 32, 4, 4)}
    expected = ort.InferenceSession(proto.SerializeToString()).run(None, feeds)[0]
    model = compress.load(proto)
    np.testing.assert_array_equal(model.run(feeds)[0], expected)
    for version in (0, 21):
        prepared = model.prepared(version)
        assert prepared.opset == max(opset, version)
        np.testing.assert_allclose(prepared.run(feeds)[0], expected, rtol=1e-4, atol=1e-6)
        assert prepared.graph.initializers["v"].shape == (32, 8)
