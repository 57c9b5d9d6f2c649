"""A run: the result of every task in a recipe's plan is taken from the store, or made and stored.

A run whose results are all stored already imports neither torch nor ONNX.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from compress import engine, estimator
from compress import recipe as recipes
from compress.engine.log import LOG_FILE, written
from compress.engine.ranking import carbon, compared
from compress.engine.store import Store, digest, environment, key, read
from compress.errors import (
    CompressError,
    DataError,
    HardwareError,
    LimitError,
    StoreError,
    TrustError,
    writing,
)
from compress.progress import step
from compress.recipe.plan import (
    FRONTIER_FILE,
    MODEL_FILE,
    PACKED_FILE,
    SCORE_FILE,
    PlannedVariant,
    Reference,
    Seek,
    Task,
)
from compress.recipe.values import Recipe
from compress.results import Results, Searched, VariantResult

CONCERNS_ALL = (DataError, HardwareError, StoreError, TrustError)
"""Errors that every variant would meet, so that they end the run."""

VARIANTS_FILE = "variants.yaml"
"""The variants that a search has found, as a recipe writes them."""
logger = logging.getLogger(__name__)


def run(
    recipe: Recipe | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    trust: bool = False,
    fresh: bool = False,
    variants: Sequence[str] = (),
) -> Results:
    """Run a recipe: every variant becomes an ONNX file in `output`, scored in ``results.json``.

    A variant that fails is reported with its reason, and the others go on. ``log.txt`` in `output`
    holds the traceback of an unexpected error. Work that an earlier run has finished, killed or not,
    is not done again.

    Args:
        recipe: a loaded recipe or its path.
        output: folder for the results; ``runs/<name of the recipe>`` if left out.
        trust: whether code outside the recipe's folder may run.
        fresh: ignore the results of earlier runs.
        variants: names of the variants to run; all if empty. The original always runs.

    Raises:
        InputError: recipe, model or data cannot be used, or the recipe has no such variant.
        StoreError: results cannot be written.
    """
    if not isinstance(recipe, Recipe):
        recipe = recipes.load(recipe)
    plan = recipes.plan(recipe, variants)
    folder = Path(output) if output is not None else Path("runs", recipe.path.stem)
    store = Store(folder / ".store")
    with store.locked(), written(folder / LOG_FILE):
        if fresh:
            store.clear()
        runner = _Runner(recipe, folder, store, trust)
        with estimator.spending.spending("run") as spent:
            planned, done = [*plan.variants], [runner.result(each) for each in plan.variants]
            searched, failed = None, list[VariantResult]()
            if plan.search is not None:
                found, searched, failed = runner.searched(plan.search)
                planned += found
                done += [runner.result(each) for each in found]
        grid = recipe.carbon
        results = Results(
            recipe=_described(recipe),
            environment=_environment(recipe),
            variants=[*compared([each.variant for each in planned], done), *failed],
            searched=searched,
            spent=spent.made,
            carbon=None if grid is None else carbon(done, spent.made, grid.grams_per_kwh),
        )
        with writing(folder):
            results.save(folder / "results.json")
    return results


class _Runner:
    """Takes the result of each task from the store, or makes and stores it."""

    def __init__(self, recipe: Recipe, folder: Path, store: Store, trust: bool) -> None:
        self.recipe = recipe
        self.folder = folder
        self.store = store
        self.trust = trust
        self.keys: dict[Task, str] = {}

    def result(self, planned: PlannedVariant) -> VariantResult:
        """Compress, export and score one variant; a failure becomes part of the result."""
        name, passes = planned.variant.name, [str(each) for each in planned.variant.passes]
        try:
            score = read(self.bring(planned.score) / SCORE_FILE, VariantResult.model_validate_json)
            if passes and not any(change.action for change in score.changes):
                self._remove(name)
                return _unchanged(name, passes, score)
            path = self._export(planned)
        except Exception as error:  # passes and the runtime may raise anything; the other variants go on
            if not passes or isinstance(error, CONCERNS_ALL):
                raise
            self._remove(name)
            failed = VariantResult(name=name, passes=passes, status="failed", reason=str(error))
            if isinstance(error, CompressError):
                return failed
            logger.exception("variant %s failed", name)
            reason = f"{type(error).__name__}: {error}"
            return failed.model_copy(update={"reason": reason, "log": LOG_FILE})
        return score.model_copy(update={"name": name, "passes": passes, "path": path})

    def searched(self, seek: Seek) -> tuple[list[PlannedVariant], Searched | None, list[VariantResult]]:
        """Search for variants; return them, planned, and what was found, or else the failure as a result."""
        try:
            found = read(self.bring(seek) / FRONTIER_FILE, Searched.model_validate_json)
        except LimitError as error:  # the variants that are written down are done all the same
            return [], None, [VariantResult(name="search", passes=[], status="failed", reason=str(error))]
        with writing(self.folder):
            (self.folder / VARIANTS_FILE).write_text(found.variants(), encoding="utf-8")
        return recipes.found(self.recipe, found.points), found, []

    def bring(self, task: Task) -> Path:
        """Return the folder of a task's result: the stored one, or else one that is made now."""
        task_key = self._key(task)
        stored = self.store.get(task_key)
        if stored is None:
            parents = [self.bring(parent) for parent in task.parents]
            with step(task.title):
                journal = self.store.journal(task_key)
                stored = self.store.put(task_key, self.bench.make(task, parents, journal))
        return stored

    @cached_property
    def bench(self) -> engine.work.Bench:
        """Where tasks are done; made for the first one, because it imports torch and ONNX."""
        return engine.work.Bench(self.recipe, self.trust)

    def _key(self, task: Task) -> str:
        if task not in self.keys:
            parents = [self._key(parent) for parent in task.parents]
            self.keys[task] = key(parents, self._digested(task.ingredients))
        return self.keys[task]

    def _digested(self, ingredient: Any) -> Any:
        """Return an ingredient with every file that it names replaced by the hash of its content."""
        if isinstance(ingredient, list | tuple):
            return [self._digested(each) for each in ingredient]
        if isinstance(ingredient, Reference):
            return digest(ingredient.text, self.recipe.home)
        return digest(str(ingredient), Path()) if isinstance(ingredient, Path) else ingredient

    def _remove(self, name: str, besides: Collection[str] = ()) -> None:
        """Remove the files of a variant that an earlier run has left."""
        target = self.folder / name
        with writing(target):
            for file in [*target.glob(f"{MODEL_FILE}*"), target / PACKED_FILE]:
                if file.name not in besides:
                    file.unlink(missing_ok=True)

    def _export(self, planned: PlannedVariant) -> str:
        """Put the variant's files into the output folder; return the path of the ONNX file in it."""
        target = self.folder / planned.variant.name
        files = [*self.bring(planned.model).glob(f"{MODEL_FILE}*")]
        if planned.packed is not None:
            files.append(self.bring(planned.packed) / PACKED_FILE)
        with writing(target):
            target.mkdir(parents=True, exist_ok=True)
            self._remove(planned.variant.name, besides={file.name for file in files})
            for file in files:
                copy = target / file.name
                if not (copy.exists() and copy.stat().st_mtime_ns == file.stat().st_mtime_ns):
                    partial = target / f".{file.name}.partial"
                    shutil.copy2(file, partial)
                    partial.replace(copy)
        return f"{planned.variant.name}/{MODEL_FILE}"


def _unchanged(name: str, passes: list[str], score: VariantResult) -> VariantResult:
    """Return the result of a variant whose passes changed nothing."""
    told = sorted({change.skipped for change in score.changes})
    reason = (score.weights.left if score.weights else "") or "; ".join(told)
    return VariantResult(name=name, passes=passes, status="unchanged", reason=reason, changes=score.changes)


def _described(recipe: Recipe) -> dict[str, Any]:
    settings = recipe.model_dump(mode="json", exclude={"variants", "path", "version"})
    return {"path": os.fspath(recipe.path), **settings}


def _environment(recipe: Recipe) -> dict[str, Any]:
    return {
        **dict(environment()),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": recipe.threads,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
