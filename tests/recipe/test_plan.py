"""The plan of a recipe: which tasks there are, what each follows from, and that none is planned twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress import recipe
from compress.errors import InputError
from compress.estimator.files import FOLDER
from compress.recipe.plan import Apply, Pack, Plan, PlannedVariant, Read, Reference, Score

HEAD = """
version: 1
model: net.py:build
data: {calibration: net.py:data}
metric: net.py:score
hardware: [eyeriss-v1]
variants:
"""
VARIANTS = """
  int4: [fold, int4-weights]
  original: []
  folded: [fold]
  small: [fold, int4-weights: {group_size: 128}]
"""

Planned = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """Plan a recipe of these variants and further keys."""
    (tmp_path / "net.py").write_text("def build(): ...\ndef data(): ...\ndef score(): ...\n")

    def planned(variants: str = VARIANTS, more: str = "", only: tuple[str, ...] = ()) -> Plan:
        (tmp_path / "recipe.yaml").write_text(f"{HEAD}{variants}\n{more}")
        return recipe.plan(recipe.load(tmp_path / "recipe.yaml"), only)

    return planned


def by_name(plan: Plan) -> dict[str, PlannedVariant]:
    return {each.variant.name: each for each in plan.variants}


def test_variants_that_begin_alike_share_tasks(planned: Planned) -> None:
    plan = planned()
    found = by_name(plan)
    assert list(found) == ["original", "int4", "folded", "small"]
    int4, small = found["int4"].model, found["small"].model
    assert isinstance(int4, Apply) and isinstance(small, Apply)
    assert int4.parent is small.parent is found["folded"].model
    assert int4.original is found["original"].model
    assert int4 is not small
    kinds = [type(task) for task in plan.tasks()]
    assert (kinds.count(Read), kinds.count(Apply), kinds.count(Score)) == (1, 3, 4)


def test_every_task_comes_once_and_after_what_it_uses(planned: Planned) -> None:
    tasks = list(planned(more="pack: true").tasks())
    assert len(set(tasks)) == len(tasks)
    for number, task in enumerate(tasks):
        assert set(task.parents) <= set(tasks[:number])
    assert sum(isinstance(task, Pack) for task in tasks) == 4
    assert all(task.title for task in tasks)


def test_nothing_is_packed_unasked(planned: Planned) -> None:
    assert not any(isinstance(task, Pack) for task in planned().tasks())


def test_the_original_is_added_where_the_recipe_names_none(planned: Planned) -> None:
    first, second = planned("  int4: [int4-weights]").variants
    assert (first.variant.name, first.variant.passes) == ("original", ())
    assert isinstance(second.model, Apply) and second.model.parent is first.model


def test_some_variants_alone(planned: Planned) -> None:
    assert list(by_name(planned(only=("small",)))) == ["original", "small"]
    with pytest.raises(InputError, match=r"recipe\.yaml: there is no variant 'smal'; did you mean 'small'"):
        planned(only=("smal",))


def test_a_source_follows_from_code_and_seed(planned: Planned) -> None:
    source = by_name(planned(more="seed: 7"))["original"].model
    kind, named, contents, seed = source.ingredients
    assert (kind, seed) == ("model", 7)
    assert named == ["net.py:build", "net.py:data", None, "auto"]
    assert contents == [Reference("net.py:build"), Reference("net.py:data")]


def ingredients(plan: Plan, name: str) -> list[Any]:
    """Return what a variant's score follows from, up to the root, as JSON."""

    def gathered(task: Any) -> list[Any]:
        return [task.ingredients, *map(gathered, task.parents)]

    found: list[Any] = json.loads(json.dumps(gathered(by_name(plan)[name].score), default=str))
    return found


def test_a_score_follows_from_all_that_it_depends_on(planned: Planned) -> None:
    plain = ingredients(planned(), "int4")
    assert str(FOLDER / "eyeriss-v1.yaml") in json.dumps(plain)
    assert plain != ingredients(planned(), "small")
    for more in ("threads: 2", "latency: 3", "shapes: {x: [1, 3]}", "seed: 1", "pack: true"):
        assert ingredients(planned(more=more), "int4") != plain, more
    renamed = VARIANTS.replace("int4:", "other:")
    assert ingredients(planned(renamed), "other") == plain


def test_a_default_that_is_written_out_changes_nothing(planned: Planned) -> None:
    written = VARIANTS.replace("[fold, int4-weights]", "[fold: {exclude: []}, int4-weights]")
    assert ingredients(planned(written), "int4") == ingredients(planned(), "int4")
