"""The main job: the recipe that `make run` runs, and the photographs that come with it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress import recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clothes() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "recipes")
        yield importlib.import_module("clothes_cnn")


def test_the_recipe_is_valid_and_the_readme_tells_of_it() -> None:
    job = "compress run recipes/clothes.yaml"
    assert job in (ROOT / "Makefile").read_text() and job in (ROOT / "README.md").read_text()
    parsed = recipe.load(ROOT / "recipes/clothes.yaml")
    assert parsed.search is not None and parsed.search.limits.drop is not None
    assert len(parsed.variants) == 5


def test_photographs_that_score_are_not_among_those_that_calibrate(clothes: Any) -> None:
    seen, unseen = (list(yielded()) for yielded in (clothes.calibration, clothes.evaluation))
    rows = [{each.tobytes() for feeds, _ in part for each in feeds["image"]} for part in (seen, unseen)]
    assert len(rows[0]) > 4000 and len(rows[1]) > 1990 and len(rows[0] & rows[1]) < 5
    labels = np.concatenate([labels for _, labels in unseen])
    assert np.bincount(labels, minlength=10).min() > 150
    image = unseen[0][0]["image"]
    assert (
        image.shape == (64, 1, 14, 14) and image.dtype == np.float32 and 0 <= image.min() < image.max() <= 1
    )


def test_the_network_is_small_and_learns(clothes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clothes, "TRAINING", 2048)
    monkeypatch.setattr(clothes, "EPOCHS", 1)
    network = clothes.build()
    x, y = clothes.photographs()
    with torch.no_grad():
        answers = network(torch.from_numpy(x[-1000:])).argmax(1).numpy()
    assert (answers == y[-1000:]).mean() > 0.6
    assert sum(each.numel() for each in network.parameters()) < 50_000
