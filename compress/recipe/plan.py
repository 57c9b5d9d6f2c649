"""The plan of a recipe: the tree of tasks that its variants are made by.

Planning is pure: nothing is read and nothing runs. The engine brings the result of every task from
its store, or makes it. Variants whose passes begin alike share the tasks of that beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from compress.errors import InputError, did_you_mean
from compress.estimator.files import kernels_path, profile_path
from compress.passes.base import Pass, get
from compress.recipe.values import DataFunctions, Recipe, Variant
from compress.recipe.wanted import Search
from compress.results import METRICS, SearchedPoint

MODEL_FILE = "model.onnx"
CHANGES_FILE = "changes.json"
MAKING_FILE = "making.json"
FRONTIER_FILE = "frontier.json"
PACKED_FILE = "model.packed"
SCORE_FILE = "score.json"


@dataclass(frozen=True, slots=True)
class Reference:
    """A model or a function that a recipe names; its content is an ingredient of a task."""

    text: str
    """As the recipe writes it; paths are relative to the recipe."""


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Read the model of a recipe, and export it if it is a module."""

    model: str
    data: DataFunctions
    seed: int
    parents: ClassVar[tuple[Task, ...]] = ()
    passes: ClassVar[tuple[Pass, ...]] = ()

    @property
    def title(self) -> str:
        """What is done, for the progress."""
        return f"reading {self.model}"

    @property
    def ingredients(self) -> list[Any]:
        """What the result follows from."""
        functions = [each for each in (self.data.calibration, self.data.evaluation) if each]
        named = [self.model, self.data.calibration, self.data.evaluation, self.data.batch_axis]
        return ["model", named, [Reference(each) for each in (self.model, *functions)], self.seed]


@dataclass(frozen=True, slots=True, eq=False)
class Apply:
    """Apply one pass to the model of another task."""

    parent: ModelTask
    step: Pass
    original: Read
    """The model before all passes, which a pass may ask for."""

    @property
    def parents(self) -> tuple[Task, ...]:
        """The tasks whose results are used: the model before the pass, and the original."""
        return self.parent, self.original

    @property
    def passes(self) -> tuple[Pass, ...]:
        """All passes up to this one, in order."""
        return *self.parent.passes, self.step

    @property
    def title(self) -> str:
        """What is done, for the progress."""
        return " > ".join(map(str, self.passes))

    @property
    def ingredients(self) -> list[Any]:
        """What the result follows from, beside the parents' results."""
        return ["pass", self.step.name, self.step.model_dump(mode="json")]


@dataclass(frozen=True, slots=True, eq=False)
class Seek:
    """Search for the best variants of a model."""

    original: Read
    wanted: Search
    metric: str
    title: ClassVar[str] = "searching"
    passes: ClassVar[tuple[Pass, ...]] = ()

    @property
    def parents(self) -> tuple[Task, ...]:
        """The model under search."""
        return (self.original,)

    @property
    def ingredients(self) -> list[Any]:
        """What the result follows from, beside the model and its data."""
        profile = profile_path(self.wanted.hardware or "")
        return ["search", self.wanted.model_dump(mode="json"), self.metric, profile, kernels_path()]


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Write the model of another task as one packed file."""

    parent: ModelTask
    title: ClassVar[str] = "packing"

    @property
    def parents(self) -> tuple[Task, ...]:
        """The task whose model is packed."""
        return (self.parent,)

    @property
    def ingredients(self) -> list[Any]:
        """What the result follows from, beside the parent's."""
        return ["packed"]


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Evaluate the model of another task against the original, and estimate its cost."""

    variant: str
    model: ModelTask
    original: Read
    packed: Pack | None
    beside: Score | None
    """The score of the original, whose time a variant's is told from; None for the original itself."""
    settings: Recipe

    @property
    def parents(self) -> tuple[Task, ...]:
        """The model, the original, then what there is of a packed file and the original's score."""
        return self.model, self.original, *(each for each in (self.packed, self.beside) if each)

    @property
    def title(self) -> str:
        """What is done, for the progress."""
        return f"scoring {self.variant}"

    @property
    def ingredients(self) -> list[Any]:
        """What the result follows from, beside the parents' results: not the name of the variant."""
        recipe = self.settings
        metric = recipe.metric
        code = Reference(metric.name) if metric and metric.name not in METRICS else None
        profiles = [(each, profile_path(each)) for each in recipe.hardware]
        runtime = [recipe.threads, recipe.providers, recipe.latency, recipe.shapes]
        measure = metric and [metric.name, metric.better, code]
        return ["score", measure, profiles, kernels_path(), runtime]


ModelTask: TypeAlias = Read | Apply
"""Tasks that make a model."""
Task: TypeAlias = Read | Apply | Seek | Pack | Score
"""What the engine can do."""


@dataclass(frozen=True, slots=True)
class PlannedVariant:
    """The last tasks of one variant."""

    variant: Variant
    model: ModelTask
    packed: Pack | None
    score: Score


@dataclass(frozen=True, slots=True)
class Plan:
    """The tasks of a recipe."""

    variants: tuple[PlannedVariant, ...]
    """The original first: all others are compared with it."""
    search: Seek | None = None
    """What finds further variants."""

    def tasks(self) -> Iterator[Task]:
        """Yield every task once, after those it depends on."""
        seen: set[Task] = set()
        for planned in self.variants:
            for task in _upwards(planned.score):
                if task not in seen:
                    seen.add(task)
                    yield task


def plan(recipe: Recipe, variants: Sequence[str] = ()) -> Plan:
    """Return the tasks of a recipe.

    Args:
        recipe: a loaded recipe.
        variants: names of the variants to plan; all if empty. The original always is among them.

    Raises:
        InputError: the recipe has no variant of such a name.
    """
    known = [one.name for one in recipe.variants]
    for name in variants:
        if name not in known:
            raise InputError(f"{recipe.path}: there is no variant {name!r}{did_you_mean(name, known)}")
    original = Read(recipe.model, recipe.data or DataFunctions(), recipe.seed)
    made: dict[tuple[str, ...], ModelTask] = {(): original}
    planned: list[PlannedVariant] = []
    for variant in _with_original(recipe):
        if variant.passes and variants and variant.name not in variants:
            continue
        task = made[()]
        for count, step in enumerate(variant.passes, start=1):
            beginning = tuple(map(str, variant.passes[:count]))
            task = made.setdefault(beginning, Apply(task, step, original))
        packed = Pack(task) if recipe.pack else None
        score = Score(variant.name, task, original, packed, planned[0].score if planned else None, recipe)
        planned.append(PlannedVariant(variant, task, packed, score))
    seek = None
    if recipe.search is not None and not variants:
        seek = Seek(original, recipe.search, recipe.metric.name if recipe.metric else "accuracy")
    return Plan(tuple(planned), seek)


def found(recipe: Recipe, points: Sequence[SearchedPoint]) -> list[PlannedVariant]:
    """Return the last tasks of the variants that a search has found."""
    variants = [
        Variant(
            name=point.name,
            passes=tuple(
                get(name).model_validate(settings) for each in point.passes for name, settings in each.items()
            ),
            budget=recipe.budget,
        )
        for point in points
    ]
    every = plan(recipe.model_copy(update={"variants": tuple(variants)}))
    return [each for each in every.variants if each.variant.passes]


def _with_original(recipe: Recipe) -> list[Variant]:
    ordered = sorted(recipe.variants, key=lambda variant: bool(variant.passes))
    return ordered if ordered and not ordered[0].passes else [Variant(name="original", passes=()), *ordered]


def _upwards(task: Task) -> Iterator[Task]:
    for parent in task.parents:
        yield from _upwards(parent)
    yield task
