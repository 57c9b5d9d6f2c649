"""Random inputs of one sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.diagnose.samples import random_feeds


def test_random_inputs_fit_the_model(transformer: Any, recurrent: Any) -> None:
    tokens = random_feeds(transformer.ir)["tokens"]
    assert tokens.dtype == np.int64 and tokens.min() >= 0 and tokens.max() < 64 and len(np.unique(tokens)) > 2
    assert random_feeds(recurrent.ir)["x"].dtype == np.float32
