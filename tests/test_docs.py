"""What the documentation shows is run; what is written from the code is as the code says."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

ROOT = Path(__file__).parent.parent


def blocks(file: str, language: str) -> list[str]:
    """Return the fenced blocks of a Markdown file in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / file).read_text(encoding="utf-8"), re.M | re.S)


def linear() -> ir.Model:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 64]))
    array = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    weight = ir.Value(
        name="w", type=x.type, shape=ir.Shape(array.shape), const_value=ir.tensor(array, name="w")
    )
    node = ir.node("MatMul", [x, weight], name="linear")
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = x.type, ir.Shape(["batch", 8])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 21}, name="g")
    return ir.Model(graph, ir_version=10)


def test_written_pages_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "docs/build.py")
    assert spec is not None and spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    stale = [
        path.name
        for path, text in build.pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"{stale} differ from the docstrings: run `make docs` and commit what it changes"


def test_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (snippet,) = blocks("README.md", "python")
    shown: dict[str, object] = {}
    exec(snippet, shown)
    before, after = shown["before"], shown["after"]
    assert after.energy_joules < 0.7 * before.energy_joules  # type: ignore[attr-defined]
    assert Path("small.onnx").stat().st_size < 200_000
    assert "prune-channels" in capsys.readouterr().out


def test_readme_recipe_is_valid(tmp_path: Path) -> None:
    from compress import recipe

    (text,) = blocks("README.md", "yaml")
    # Its paths are relative to the root of the repository, where its reader would put it.
    (tmp_path / "recipes").mkdir()
    shutil.copy(ROOT / "recipes/digits_cnn.py", tmp_path / "recipes")
    (tmp_path / "camera.yaml").write_text(text)
    parsed = recipe.load(tmp_path / "camera.yaml")
    assert [variant.name for variant in parsed.variants] == ["original", "int8", "pruned"]


@pytest.fixture(scope="module")
def pasted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package into which the pass and the operator of CONTRIBUTING.md were pasted."""
    folder = tmp_path_factory.mktemp("pasted")
    shutil.copytree(ROOT / "compress", folder / "compress", ignore=shutil.ignore_patterns("__pycache__"))
    work, face, made, listed, _ = _examples("## Add a pass")
    _, function, entry, kind, nest, formula = _examples("## Add an operator")
    rooms = folder / "compress"
    (rooms / "quantize/mantissa.py").write_text(work)
    (rooms / "passes/round_mantissa.py").write_text(made)
    _insert(rooms / "quantize/__init__.pyi", "", face)
    _insert(rooms / "passes/__init__.py", "__all__", listed)
    _insert(rooms / "passes/__init__.py", '    "Smooth"', '    "RoundMantissa",\n')
    _insert(rooms / "graph/facts/products.py", '    Operator("Einsum"', entry)
    _insert(rooms / "graph/facts/record.py", '    "einsum"', kind)
    _insert(rooms / "estimator/operators.py", "READERS:", nest)
    _insert(rooms / "estimator/operators.py", '    "einsum": ', formula)
    _insert(rooms / "trainable/operators/linear.py", '@operator("Det")', function)
    return folder


def _examples(heading: str) -> list[str]:
    """Return the Python of one section of CONTRIBUTING.md, as blocks and as single lines."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index(heading) :].removeprefix(heading).split("\n## ")[0]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.M | re.S)
    return [code for language, code in fenced if language in ("", "python")]


def _insert(file: Path, before: str, text: str) -> None:
    content = file.read_text(encoding="utf-8")
    assert before in content, f"{file.name} has no {before}"
    file.write_text(content.replace(before, text + before, 1), encoding="utf-8")


def _run(folder: Path, program: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-W", "error", "-c", program], env=environment, cwd=folder, check=True)


def test_contributed_pass_works(pasted: Path) -> None:
    onnx.save(ir.to_proto(linear()), pasted / "linear.onnx")
    _run(
        pasted,
        """
import numpy as np
import compress
from compress.passes import RoundMantissa
from compress.passes.base import get

assert get("round-mantissa") is RoundMantissa
model = compress.load("linear.onnx")
rounded = RoundMantissa(bits=3)(model)
(change,) = rounded.changes
assert 0.01 < change.error < 2**-4
weight = rounded.graph.initializers["w"].const_value.numpy()
assert not (weight.view(np.uint32) & ((1 << 20) - 1)).any()
assert not np.array_equal(weight, model.graph.initializers["w"].const_value.numpy())
assert not any(change.action for change in RoundMantissa(exclude=["linear"])(model).changes)
""",
    )


def test_contributed_operator_works(pasted: Path) -> None:
    _run(
        pasted,
        """
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper
import compress
from compress.graph import facts
from compress.trainable import Trainable

node = helper.make_node("CDist", ["a", "b"], ["d"], domain="com.microsoft")
a, b, d = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    for name, shape in (("a", [3, 8]), ("b", [4, 8]), ("d", [3, 4]))
)
opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
model = helper.make_model(helper.make_graph([node], "g", [a, b], [d]), opset_imports=opsets, ir_version=10)
assert facts.find("CDist", "com.microsoft").contracts
assert compress.estimate(model, "eyeriss-v1").total.macs == 3 * 4 * 8
left, right = torch.rand(3, 8), torch.rand(4, 8)
(distances,) = Trainable(ir.from_proto(model))(a=left, b=right)
torch.testing.assert_close(distances, torch.cdist(left, right) ** 2)
""",
    )


def test_contributed_profile_scores(tmp_path: Path) -> None:
    import compress
    from compress.estimator import load

    (text,) = blocks("CONTRIBUTING.md", "yaml")
    file = tmp_path / "my-mcu.yaml"
    file.write_text(text)
    profile = load(file)
    assert set(profile.sources) == {quantity.source for _, quantity in profile.quantities()}
    total = compress.estimate(linear(), file).total
    assert total.macs == 64 * 8
    assert total.energy["compute"] == pytest.approx(64 * 8 * 60e-12)
    assert total.energy_low < total.energy_joules < total.energy_high
