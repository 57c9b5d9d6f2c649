"""References to functions: found, trusted, run, and one clear message where that fails."""

from __future__ import annotations

import pytest

import compress
from compress.errors import InputError, ModelError, TrustError


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
        ("home_models.py:none", ModelError, "NoneType is not a model"),
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
    with pytest.raises(ModelError, match="NoneType is not a model"):
        compress.load("../other/other_models.py:none", home=home, trust=True)
