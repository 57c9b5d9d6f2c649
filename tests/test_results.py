from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from compress.errors import InputError
from compress.results import Agreement, Metric, Results, VariantResult


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_numbers_that_are_not_finite_survive_strict_json(tmp_path: Path) -> None:
    variant = VariantResult(
        name="same",
        passes=[],
        status="done",
        agreement=Agreement(equal=1.0),
        metric=Metric(name="margin", value=-math.inf, delta=math.nan),
    )
    path = tmp_path / "results.json"
    Results(recipe={}, environment={}, variants=[variant]).save(path)
    stored = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert stored["variants"][0]["metric"]["value"] == "-Infinity"
    again = Results.load(path).variants[0]
    assert again.agreement == variant.agreement
    assert again.metric is not None and again.metric.value == -math.inf and math.isnan(again.metric.delta)


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"schema": 1, "recipe": {}, "variants": [{"name": 1}]}']
)
def test_what_is_no_results_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"results\.json: not a results file: \w"):
        Results.load(path)
    with pytest.raises(InputError, match="'compress run' writes it"):
        Results.load(tmp_path / "none.json")
