"""Every node test of ONNX through the estimator."""

from __future__ import annotations

import math

import pytest

from compress.errors import ModelError
from compress.estimator import estimate

UNKNOWN = ("sequence", "optional", "affine_grid", "string_split_empty")
"""Cases, by a part of their name, whose shapes only a run on their own data could tell."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_operator_is_costed_or_named() -> None:
    from onnx.backend.test.case.node import collect_testcases

    refused = []
    for case in collect_testcases(None):
        try:
            estimated = estimate(case.model, "tpu-v4i")
        except ModelError:
            refused.append(case.name)
            continue
        total = estimated.total
        assert math.isfinite(total.energy_joules), case.name
        assert total.energy_low <= total.energy_joules <= total.energy_high, case.name
    assert [name for name in refused if not any(word in name for word in UNKNOWN)] == []
