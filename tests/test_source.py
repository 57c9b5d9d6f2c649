"""The door: what comes in as it should, and one clear message for everything that does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx.external_data_helper import set_external_data
from torch import nn

import compress
from compress.errors import DataError, InputError, ModelError, TrustError
from compress.graph.session import session

EXAMPLE = (torch.zeros(2, 4),)


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
    with pytest.raises(ModelError, match="a list is no model"):
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
    assert model.ir.opset_imports[""] == 21
    np.testing.assert_allclose(model.run(feeds)[0], expected, rtol=1e-4, atol=1e-6)
    assert model.graph.initializers["v"].shape == (32, 8)


def test_a_module_is_exported_with_its_names_and_free_sizes():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    module.eval()
    model = compress.load(module, example_inputs=torch.zeros(1, 3, 4, 4, requires_grad=True))
    assert set(module.state_dict()) - {"1.num_batches_tracked"} <= set(model.graph.initializers)
    assert "BatchNormalization" in [node.op_type for node in model.graph]
    assert not [node.name for node in model.graph if node.metadata_props]  # stack traces of the exporter
    for rows in (1, 7):
        x = torch.randn(rows, 3, 4, 4)
        with torch.no_grad():
            expected = module(x).numpy()
        np.testing.assert_allclose(model.run({"input": x.numpy()})[0], expected, rtol=1e-4, atol=1e-5)


def test_an_axis_that_differs_between_batches_is_free():
    module = nn.Linear(4, 2)
    batches = [np.zeros((2, 5, 4), np.float32), np.zeros((3, 9, 4), np.float32)]
    model = compress.load(module, calibration=batches)
    assert model.run({"input": np.zeros((1, 17, 4), np.float32)})[0].shape == (1, 17, 2)


class Branches(nn.Module):
    def forward(self, x):
        raise KeyError("weird")


def test_modules_that_cannot_be_exported_are_refused():
    with pytest.raises(ModelError, match="torch cannot export the module: 'weird'"):
        compress.load(Branches(), example_inputs=EXAMPLE)
    with pytest.raises(ModelError, match="needs example inputs or calibration data"):
        compress.load(nn.Linear(4, 4))
    with pytest.raises(ModelError, match="2 example inputs for a module that takes 1"):
        compress.load(nn.Linear(4, 4), example_inputs=(*EXAMPLE, *EXAMPLE))
    with pytest.raises(ModelError, match="example input 'input': a object is no array"):
        compress.load(nn.Linear(4, 4), example_inputs=(object(),))
    with pytest.raises(ModelError, match=r"torch cannot export the module: .*missing a required argument"):
        compress.load(nn.Linear(4, 4), example_inputs={"wrong": EXAMPLE[0]})
    with pytest.raises(DataError, match="can be read only once"):
        compress.load(nn.Linear(4, 4), calibration=(x for x in EXAMPLE))


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "other").mkdir()
    for folder in ("home", "other"):
        (tmp_path / folder / f"{folder}_models.py").write_text(
            "from onnx import parser\n"
            "NUMBER = 3\n"
            "def none(): return None\n"
            "def path(): return 'missing.onnx'\n"
            "def raises(): raise RuntimeError('disk on fire')\n"
        )
    (tmp_path / "home" / "fails.py").write_text("raise ValueError('at import')")
    (tmp_path / "home" / "broken.py").write_text("def (")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("home_models.py:none", ModelError, "a NoneType is no model"),
        ("home_models.py:path", ModelError, "missing.onnx: no such file"),
        ("home_models.py:raises", ModelError, "disk on fire"),
        ("home_models.py:NUMBER", ModelError, "not callable"),
        ("home_models.py:nine", InputError, "no function 'nine'; did you mean 'none'"),
        ("home_models.py:Patth", InputError, "no function 'Patth'; did you mean 'path'"),
        ("absent.py:none", InputError, "absent.py: no such file"),
        ("fails.py:f", InputError, "fails.py: cannot be imported: ValueError: at import"),
        ("broken.py:f", InputError, "broken.py: cannot be imported: SyntaxError"),
        ("../other/other_models.py:none", TrustError, "not beside the recipe; add --trust"),
    ],
)
def test_functions_that_make_no_model(home, reference, kind, message):
    with pytest.raises(kind, match=message):
        compress.load(reference, home=home)


def test_trust_lets_code_elsewhere_run(home):
    with pytest.raises(ModelError, match="a NoneType is no model"):
        compress.load("../other/other_models.py:none", home=home, trust=True)


def test_pt2_files_need_trust(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises(TrustError, match=r"model\.pt2: loading a \.pt2 file can run code"):
        compress.load(path)
    with pytest.raises(ModelError, match=r"model\.pt2: cannot be read"):
        compress.load(path, trust=True)
    torch.export.save(torch.export.export(nn.Linear(4, 3), EXAMPLE), path)
    assert compress.load(path, trust=True).run({"input": np.zeros((2, 4), np.float32)})[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("config", "weights", "kind", "message"),
    [
        (None, False, ModelError, "needs a config.json"),
        ("{", False, ModelError, "config.json:1:2: Expecting property name"),
        ("[]", True, ModelError, "config.json: holds no mapping"),
        ({"model_type": "bert"}, False, ModelError, "has no .safetensors weights"),
        ({"model_type": "bert", "auto_map": {}}, True, TrustError, "brings its own code"),
        ({"model_type": "nonsense"}, True, ModelError, "transformers cannot load it.*nonsense"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, True, ModelError, "header too small"),
    ],
)
def test_folders_that_hold_no_model(tmp_path, config, weights, kind, message):
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        Path(tmp_path, "config.json").write_text(text)
    if weights:
        Path(tmp_path, "model.safetensors").write_bytes(b"xx")
    with pytest.raises(kind, match=message):
        compress.load(tmp_path)


def test_a_tied_embedding_stays_one_weight(transformer):
    tied = transformer.graph.initializers["embedding.weight"]
    assert {use.node.op_type for use in tied.uses()} == {"Gather", "Transpose"}
    sizes = [tuple(value.shape) for value in transformer.graph.initializers.values()]
    assert sizes.count((64, 32)) + sizes.count((32, 64)) == 1
    for shape in ((1, 5), (3, 17)):
        assert transformer.run({"tokens": np.ones(shape, np.int64)})[0].shape == (*shape, 64)
