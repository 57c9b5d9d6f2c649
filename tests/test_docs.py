"""What the documentation shows is run; what is written from the code is as the code says."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from compress.passes.base import REGISTRY

ROOT = Path(__file__).parent.parent


def blocks(file: str, language: str) -> list[str]:
    """Return the fenced blocks of a Markdown file in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / file).read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def known_passes() -> Iterator[None]:
    """Forget the passes that a test defines."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


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
    assert not stale, "run `make docs`"


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
    assert after.energy_joules < 0.6 * before.energy_joules  # type: ignore[attr-defined]
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


def test_contributed_pass_works(tmp_path: Path, known_passes: None) -> None:
    import compress
    from compress.report import describe

    (source,) = blocks("CONTRIBUTING.md", "python")
    file = tmp_path / "round_mantissa.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("round_mantissa", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert next(setting.name for setting in describe.settings(REGISTRY["round-mantissa"])) == "bits"

    model = compress.load(linear())
    rounded = module.RoundMantissa(bits=3)(model)
    (change,) = rounded.changes
    assert 0.01 < change.error < 2**-4
    weight = rounded.graph.initializers["w"].const_value.numpy()
    assert not (weight.view(np.uint32) & ((1 << 20) - 1)).any()
    assert not np.array_equal(weight, model.graph.initializers["w"].const_value.numpy())
    skipped = module.RoundMantissa(exclude=["linear"])(model)
    assert not any(change.action for change in skipped.changes)


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
    # Multipliers of 8 bits put a float32 product together of 16.
    assert total.energy["compute"] == pytest.approx(64 * 8 * 16 * 12e-12)
    assert total.energy_low < total.energy_joules < total.energy_high
