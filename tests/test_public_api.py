"""The names the package promises, and what importing them costs."""

import importlib
import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import compress

ROOT = Path(__file__).parent.parent
PUBLIC = ["compress", "compress.passes", "compress.estimator", "compress.report"]
LIGHT = [
    "compress",
    "compress.cli",
    "compress.recipe",
    "compress.passes",
    "compress.results",
    "compress.recipe.schema",
]
HEAVY = {
    "torch",
    "torchao",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "transformers",
    "scipy",
    "plotly",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_what_imports(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for public in module.__all__:
        thing = getattr(module, public)
        assert (thing.__doc__ or "").strip(), f"{name}.{public} has no docstring"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def test_the_package_tells_its_version_and_its_names() -> None:
    assert compress.__version__ == metadata.version("compress-toolkit")
    assert {"__version__", "load", "run", "Pipeline", "Model", "estimate", "open"} <= set(dir(compress))


def test_every_pass_is_in_the_catalogue() -> None:
    import compress.passes
    from compress.passes.base import REGISTRY

    listed = {getattr(compress.passes, name) for name in compress.passes.__all__}
    for file in Path(compress.passes.__file__).parent.glob("*.py"):
        importlib.import_module(f"compress.passes.{file.stem}")
    defined = {kind for kind in REGISTRY.values() if kind.__module__.startswith("compress.passes.")}
    assert defined == listed, "import every pass in compress/passes/__init__.py, and name it in __all__ there"


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_nothing_heavy(name: str) -> None:
    program = f"import sys, {name}; print(*({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_package_carries_its_data_and_types() -> None:
    package = resources.files("compress")
    for inner in (
        "py.typed",
        "estimator/profiles/eyeriss-v1.yaml",
        "report/assets/report.html.j2",
        "report/assets/plotly.min.js",
    ):
        assert package.joinpath(inner).is_file(), inner


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert all(re.fullmatch(r"[0-9][0-9.a-z]*", version) for version in pinned.values())
    needed = {
        canonicalize_name(Requirement(each).name) for each in metadata.requires("compress-toolkit") or []
    }
    assert needed - {"compress-toolkit"} <= pinned.keys()
