"""Inputs of one sample."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from compress.diagnose.samples import random_feeds, single


def test_single_keeps_one_row_of_batched_inputs() -> None:
    feeds = {"x": np.zeros((8, 2)), "table": np.zeros((8, 2))}
    inputs = [SimpleNamespace(name="x", shape=["N", 2]), SimpleNamespace(name="table", shape=[8, 2])]
    shapes = {name: array.shape for name, array in single(feeds, inputs).items()}
    assert shapes == {"x": (1, 2), "table": (8, 2)}


def test_random_inputs_fit_the_model(transformer: Any, recurrent: Any) -> None:
    tokens = random_feeds(transformer.ir)["tokens"]
    assert tokens.dtype == np.int64 and tokens.min() >= 0 and tokens.max() < 64 and len(np.unique(tokens)) > 2
    assert random_feeds(recurrent.ir)["x"].dtype == np.float32
