"""What tasks hand to each other."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from compress.changes import Change, Effect
from compress.engine.work import CHANGES
from compress.results import VariantResult


@pytest.mark.parametrize("effect", [None, Effect(True), Effect(False, 31.4, 0.024, 0.012, "too noisy")])
def test_records_are_read_back_as_they_were(effect: Effect | None) -> None:
    change = Change("conv", "8 bits", 8, 2, float("inf"), by="int8", effect=effect)
    assert CHANGES.validate_json(json.dumps([asdict(change)])) == [change]
    variant = VariantResult(name="a", passes=["int8"], status="done", changes=[change])
    assert VariantResult.model_validate_json(variant.model_dump_json()).changes == [change]
