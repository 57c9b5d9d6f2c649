"""A folder with a recipe in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compress import recipe
from compress.errors import RecipeError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a recipe beside ``net.py``, which has a model, data and a metric."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("def build(): ...\ndef data(): ...\nscore = print\n")

    def write(text: str, path: str = "recipe.yaml") -> Path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
        return Path(path)

    return write


@pytest.fixture
def complaint() -> Callable[[Path], str]:
    """Return the one message that loading a recipe ends with."""

    def complaint(path: Path) -> str:
        with pytest.raises(RecipeError) as caught:
            recipe.load(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return complaint
