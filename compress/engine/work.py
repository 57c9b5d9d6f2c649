"""How each kind of task makes its result."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter

from compress import codec, seek, source
from compress.changes import Change
from compress.data import Data
from compress.engine import scoring
from compress.engine.store import read
from compress.graph import files
from compress.model import Model
from compress.passes.pipeline import apply
from compress.recipe.plan import (
    CHANGES_FILE,
    FRONTIER_FILE,
    MAKING_FILE,
    MODEL_FILE,
    PACKED_FILE,
    SCORE_FILE,
    Apply,
    Pack,
    Read,
    Score,
    Seek,
    Task,
)
from compress.recipe.values import Recipe
from compress.results import Making, VariantResult

Write = Callable[[Path], object]
"""Writes a result into a folder."""
CHANGES = TypeAdapter(list[Change])
"""Reads the records of passes from JSON."""
MAKING = TypeAdapter(list[Making])
"""Reads what passes cost from JSON, and writes it."""


class Bench:
    """Makes the results of one recipe's tasks; holds the data that they share."""

    def __init__(self, recipe: Recipe, trust: bool) -> None:
        self.recipe = recipe
        self.trust = trust

    def make(self, task: Task, parents: Sequence[Path], journal: Path) -> Write:
        """Do the work of a task; return the function that writes its result.

        Args:
            task: the task.
            parents: folders of the results of ``task.parents``, in their order.
            journal: file for what a long task finds on its way, there already if the task was stopped.
        """
        match task:
            case Read():
                return partial(_save, self._read())
            case Apply():
                return partial(_save, self._apply(task, *parents))
            case Seek():
                frontier = seek.find(
                    self._model(parents[0]), task.wanted, task.metric, journal, trust=self.trust
                )
                found = frontier.score().model_dump_json(indent=1)
                return lambda folder: (folder / FRONTIER_FILE).write_text(found, encoding="utf-8")
            case Pack():
                return lambda folder: codec.pack(parents[0] / MODEL_FILE, folder / PACKED_FILE)
            case Score():
                score = scoring.score(self._subject(task, *parents))
                text = score.model_dump_json()
                return lambda folder: (folder / SCORE_FILE).write_text(text, encoding="utf-8")

    def _read(self) -> Model:
        _seed_everything(self.recipe.seed)
        return source.load(
            self.recipe.model,
            calibration=self._calibration,
            evaluation=self._evaluation,
            trust=self.trust,
            home=self.recipe.home,
        )

    def _apply(self, task: Apply, parent: Path, original: Path) -> Model:
        _seed_everything(self.recipe.seed)
        before = self._model(parent, self._model(original).prepared() if task.parent.passes else None)
        return apply(task.step, before, task.parent.passes)

    def _model(self, folder: Path, original: Model | None = None) -> Model:
        return Model(
            files.read(folder / MODEL_FILE),
            calibration=self._calibration,
            evaluation=self._evaluation,
            changes=read(folder / CHANGES_FILE, CHANGES.validate_json),
            making=read(folder / MAKING_FILE, MAKING.validate_json),
            original=original,
        )

    def _subject(self, task: Score, model: Path, original: Path, *others: Path) -> scoring.Subject:
        beside = None
        if task.beside is not None:
            beside = read(others[-1] / SCORE_FILE, VariantResult.model_validate_json).latency_seconds
        return scoring.Subject(
            recipe=self.recipe,
            trust=self.trust,
            model=self._model(model),
            file=model / MODEL_FILE,
            original=original / MODEL_FILE,
            packed=others[0] / PACKED_FILE if task.packed is not None else None,
            original_latency=beside,
        )

    @cached_property
    def _calibration(self) -> Data | None:
        return self._data("calibration")

    @cached_property
    def _evaluation(self) -> Data | None:
        return self._data("evaluation")

    def _data(self, kind: str) -> Data | None:
        functions = self.recipe.data
        reference = getattr(functions, kind, None)
        if functions is None or reference is None:
            return None
        return source.read_data(
            reference, kind, home=self.recipe.home, trust=self.trust, batch_axis=functions.batch_axis
        )


def _save(model: Model, folder: Path) -> None:
    model.save(folder / MODEL_FILE)
    changes = json.dumps([asdict(change) for change in model.changes])
    (folder / CHANGES_FILE).write_text(changes, encoding="utf-8")
    (folder / MAKING_FILE).write_bytes(MAKING.dump_json(list(model.making)))


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (models and data of users draw from it)
    torch.manual_seed(seed)
