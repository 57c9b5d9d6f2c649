"""The one file that knows the order: source, passes, artifact, evaluation, estimate."""

from __future__ import annotations

import itertools
import json
import os
import platform
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compress.engine.store import Store, code_digest, environment, file_digest, key
from compress.errors import (
    CompressError,
    DataError,
    HardwareError,
    InputError,
    PassError,
    StoreError,
    TrustError,
)
from compress.passes.base import Pass
from compress.passes.pipeline import apply
from compress.progress import step
from compress.recipe.load import load as load_recipe
from compress.recipe.values import METRICS, Recipe, Variant
from compress.results import ChangeRecord, HardwareScore, Metric, Results, VariantResult

if TYPE_CHECKING:
    from compress.data import Data
    from compress.evaluate import Run
    from compress.model import Model

MODEL_FILE = "model.onnx"
PACKED_FILE = "model.packed"
_Read = TypeVar("_Read")
CHANGES_FILE = "changes.json"
SCORE_FILE = "score.json"
ZERO_BATCHES = 4
"""Batches on which zeros of activations are counted, for hardware that makes use of them."""
CONCERNS_ALL = (DataError, HardwareError, StoreError, TrustError)
"""Errors that every variant would meet, so that the run ends."""


def run(
    recipe: Recipe | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    trust: bool = False,
    fresh: bool = False,
    variants: Sequence[str] = (),
) -> Results:
    """Run a recipe: every variant becomes an ONNX file in `output`, scored in ``results.json``.

    A variant that fails is reported with its reason while the others finish. What an earlier run
    has done, killed or not, is not done again.

    Args:
        recipe: a loaded recipe or its path.
        output: folder for the results; ``runs/<name of the recipe>`` if left out.
        trust: whether code outside the recipe's folder may run.
        fresh: do all work anew.
        variants: names of the variants to run; all if empty. The original always runs.

    Raises:
        InputError: recipe, model or data cannot be used.
        StoreError: results cannot be written.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    folder = Path(output) if output is not None else Path("runs", recipe.path.stem)
    store = Store(folder / ".store")
    with store.locked():
        if fresh:
            store.clear()
        runner = _Runner(recipe, folder, store, trust)
        chosen = [
            each
            for each in _with_original(recipe)
            if not each.passes or each.name in variants or not variants
        ]
        done = [runner.result(variant) for variant in chosen]
        results = Results(
            recipe=_described(recipe),
            environment=_environment(recipe),
            variants=_compared(chosen, done),
        )
        results.save(folder / "results.json")
    return results


def _with_original(recipe: Recipe) -> list[Variant]:
    """Return the variants, the original first: all others are compared with it."""
    ordered = sorted(recipe.variants, key=lambda variant: bool(variant.passes))
    return ordered if not ordered[0].passes else [Variant(name="original", passes=()), *ordered]


class _Runner:
    """Brings each variant of one recipe from the store, or into it."""

    def __init__(self, recipe: Recipe, folder: Path, store: Store, trust: bool) -> None:
        self.recipe = recipe
        self.folder = folder
        self.store = store
        self.trust = trust

    def result(self, variant: Variant) -> VariantResult:
        """Compress, export and score one variant; a failure becomes part of the result."""
        passes = [str(each) for each in variant.passes]
        try:
            score = self._score(variant)
            if passes and not any(change.action for change in score.changes):
                reasons = sorted({change.skipped for change in score.changes})
                raise PassError(f"{', '.join(passes)}: changed nothing: {'; '.join(reasons)}")
            path = self._export(variant)
        except Exception as error:  # whatever a pass or the runtime raises, the other variants go on
            if not variant.passes or isinstance(error, CONCERNS_ALL):
                raise
            reason = str(error) if isinstance(error, CompressError) else f"{type(error).__name__}: {error}"
            return VariantResult(name=variant.name, passes=passes, status="failed", reason=reason)
        return score.model_copy(update={"name": variant.name, "passes": passes, "path": path})

    def _key(self, passes: Sequence[Pass]) -> str:
        if not passes:
            return self._root_key
        last = passes[-1]
        return key("pass", self._key(passes[:-1]), last.name, last.model_dump(mode="json"))

    @cached_property
    def _root_key(self) -> str:
        recipe, data = self.recipe, self.recipe.data
        functions = [data.calibration, data.evaluation] if data else []
        parts = [self._digest(each) for each in (recipe.model, *functions)]
        return key("model", recipe.model, functions, parts, recipe.seed)

    def _digest(self, reference: str | None) -> str:
        """Return the hash of what a reference names: the code of a function, the content of a file."""
        from compress.source import locate

        if reference is None:
            return ""
        file, is_code, _ = reference.rpartition(".py:")
        if is_code:
            return code_digest(self.recipe.home / f"{file}.py")
        return file_digest(locate(reference, self.recipe.home))

    def _artifact(self, passes: Sequence[Pass]) -> Path:
        """Return the stored model after `passes`; make it from the longest stored beginning."""
        stored = self.store.get(self._key(passes))
        if stored is not None:
            return stored
        _seed_everything(self.recipe.seed)
        if passes:
            before = self._model(passes[:-1])
            with step(f"{' > '.join(map(str, passes))}"):
                model = apply(passes[-1], before, passes[:-1])
        else:
            with step(f"reading {self.recipe.model}"):
                model = self._source()

        def write(folder: Path) -> None:
            model.save(folder / MODEL_FILE)
            changes = [asdict(change) for change in model.changes]
            (folder / CHANGES_FILE).write_text(json.dumps(changes), encoding="utf-8")

        return self.store.put(self._key(passes), write)

    def _packed(self, passes: Sequence[Pass]) -> Path | None:
        """Return the packed file of the model after `passes`, if the recipe asks for one."""
        if not self.recipe.pack:
            return None
        packed_key = key("packed", self._key(passes))
        model = self._artifact(passes) / MODEL_FILE
        stored = self.store.get(packed_key)
        if stored is None:
            stored = self.store.put(packed_key, lambda folder: _pack(model, folder / PACKED_FILE))
        return stored / PACKED_FILE

    def _source(self) -> Model:
        from compress.source import load

        return load(
            self.recipe.model,
            calibration=self._calibration,
            evaluation=self._evaluation,
            trust=self.trust,
            home=self.recipe.home,
        )

    def _model(self, passes: Sequence[Pass]) -> Model:
        import onnx_ir as ir

        from compress.changes import Change
        from compress.model import Model

        folder = self._artifact(passes)
        changes = _stored(folder / CHANGES_FILE, json.loads)
        return Model(
            ir.load(folder / MODEL_FILE),
            calibration=self._calibration,
            evaluation=self._evaluation,
            changes=[Change(**change) for change in changes],
            original=self._model(()) if passes else None,
        )

    @cached_property
    def _calibration(self) -> Data | None:
        return self._data("calibration")

    @cached_property
    def _evaluation(self) -> Data | None:
        return self._data("evaluation")

    def _data(self, kind: str) -> Data | None:
        from compress.data import Data
        from compress.source import call

        reference = getattr(self.recipe.data, kind, None)
        if reference is None:
            return None
        return Data(call(reference, home=self.recipe.home, trust=self.trust), kind)

    def _score(self, variant: Variant) -> VariantResult:
        score_key = key("score", self._key(variant.passes), self._root_key, self._score_settings)
        stored = self.store.get(score_key)
        if stored is None:
            artifact = self._artifact(variant.passes)
            with step(f"scoring {variant.name}"):
                result = self._measure(artifact, self._packed(variant.passes))
            stored = self.store.put(
                score_key,
                lambda folder: _write(folder / SCORE_FILE, result.model_dump_json()),
            )
        return _stored(stored / SCORE_FILE, VariantResult.model_validate_json)

    @cached_property
    def _score_settings(self) -> list[Any]:
        from compress.recipe.references import PROFILES

        recipe = self.recipe
        metric = recipe.metric
        profiles = [PROFILES / f"{each}.yaml" for each in recipe.hardware]
        files = [
            path if path.is_file() else Path(each)
            for path, each in zip(profiles, recipe.hardware, strict=True)
        ]
        return [
            metric
            and [metric.name, metric.better, self._digest(metric.name if ".py:" in metric.name else None)],
            [(each, file_digest(file)) for each, file in zip(recipe.hardware, files, strict=True)],
            [recipe.threads, recipe.providers, recipe.latency, recipe.shapes, recipe.pack],
        ]

    def _measure(self, artifact: Path, packed: Path | None) -> VariantResult:
        from compress import evaluate

        model_file = artifact / MODEL_FILE
        changes = _stored(artifact / CHANGES_FILE, json.loads)
        run, original = self._opened(model_file), self._opened(self._artifact(()) / MODEL_FILE)
        compared = self._evaluation or self._calibration
        inputs = self._model(()).graph.inputs
        close, latency, shapes = None, None, self.recipe.shapes
        if compared is not None:
            close = evaluate.agreement(run, original, evaluate.feeds_only(compared.batches(inputs)))
            batched = [
                value.name or "" for value in inputs if value.shape and not isinstance(value.shape[0], int)
            ]
            sample = evaluate.single(compared.first(inputs), batched)
            shapes = {name: array.shape for name, array in sample.items()} | shapes
            if self.recipe.latency:
                latency = evaluate.latency(run, original, sample, self.recipe.latency)
        return VariantResult(
            name="",
            passes=[],
            status="done",
            file_bytes=sum(file.stat().st_size for file in artifact.glob(f"{MODEL_FILE}*")),
            packed_bytes=packed.stat().st_size if packed else 0,
            weight_bytes=_weight_bytes(model_file),
            metric=self._metric(run, original),
            agreement=close,
            latency_seconds=latency,
            hardware=self._estimates(
                model_file, packed, shapes, compared.batches(inputs) if compared else None
            ),
            changes=[ChangeRecord(**change) for change in changes],
        )

    def _opened(self, model_file: Path) -> Run:
        from compress.graph.session import session

        ready = session(model_file, threads=self.recipe.threads, providers=self.recipe.providers)
        return lambda feeds: ready.run(None, feeds)

    def _metric(self, run: Run, original: Run) -> Metric | None:
        from compress.evaluate import measure, measure_with
        from compress.source import call

        chosen = self.recipe.metric
        if chosen is None:
            return None
        if chosen.name not in METRICS:
            function = call(chosen.name, home=self.recipe.home, trust=self.trust)
            numbers = measure_with(function, chosen.name.rpartition(":")[2], run)
            name, value = next(iter(numbers.items()))
            others = dict(list(numbers.items())[1:])
            return Metric(name=name, value=value, delta=0.0, better=chosen.better, others=others)
        if self._evaluation is None:
            raise InputError(f"{self.recipe.path}: metric {chosen.name} needs evaluation data")
        batches = self._evaluation.batches(self._model(()).graph.inputs)
        value = measure(chosen.name, run, original, batches)
        return Metric(name=chosen.name, value=value, delta=0.0, better=chosen.better)

    def _estimates(
        self, model_file: Path, packed: Path | None, shapes: dict[str, Any], batches: Iterable[Any] | None
    ) -> dict[str, HardwareScore]:
        """Estimate on every profile, with zeros counted on the data where a profile makes use of them."""
        import onnx_ir as ir

        from compress import evaluate
        from compress.estimator import estimate, load
        from compress.estimator.zeros import counted
        from compress.model import Model
        from compress.recipe.references import profile_id

        profiles = [load(each) for each in self.recipe.hardware]
        zeros: dict[str, float] = {}
        if batches is not None and any(profile.reads_activation_zeros for profile in profiles):
            feeds = itertools.islice(evaluate.feeds_only(batches), ZERO_BATCHES)
            zeros = counted(Model(ir.load(model_file)), feeds)
        return {
            profile_id(each): estimate(packed or model_file, profile, shapes=shapes, zeros=zeros).score()
            for each, profile in zip(self.recipe.hardware, profiles, strict=True)
        }

    def _export(self, variant: Variant) -> str:
        """Put the variant's files into the output folder; return the path of the ONNX file in it."""
        target = self.folder / variant.name
        target.mkdir(parents=True, exist_ok=True)
        packed = self._packed(variant.passes)
        if packed is None:
            (target / PACKED_FILE).unlink(missing_ok=True)  # of an earlier run
        for file in (*self._artifact(variant.passes).glob(f"{MODEL_FILE}*"), *([packed] if packed else [])):
            copy = target / file.name
            if not (copy.exists() and copy.stat().st_mtime_ns == file.stat().st_mtime_ns):
                partial = target / f".{file.name}.partial"
                shutil.copy2(file, partial)
                partial.replace(copy)
        return f"{variant.name}/{MODEL_FILE}"


def _pack(model: Path, path: Path) -> None:
    from compress.codec import pack

    with step("packing"):
        pack(model, path)


def _stored(path: Path, parse: Callable[[str], _Read]) -> _Read:
    """Return what an earlier run wrote."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path}: damaged; --fresh does all work anew") from error


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _weight_bytes(path: Path) -> int:
    import onnx_ir as ir

    from compress.model import Model

    return Model(ir.load(path)).weight_bytes


def _seed_everything(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (models and data of users draw from it)
    torch.manual_seed(seed)


def _compared(variants: Sequence[Variant], results: Sequence[VariantResult]) -> list[VariantResult]:
    """Add what depends on the other variants: deltas, limits missed, the Pareto front."""
    original = results[0]
    finished = []
    for variant, result in zip(variants, results, strict=True):
        changed: dict[str, Any] = {}
        if result.metric is not None and original.metric is not None:
            delta = result.metric.value - original.metric.value
            changed["metric"] = result.metric.model_copy(update={"delta": delta})
        result = result.model_copy(update=changed)
        if variant.budget is not None and result.status == "done":
            missed = variant.budget.missed(result, original)
            result = result.model_copy(update={"limits_missed": missed})
        finished.append(result)
    fronts = {name: set(_front(name, finished)) for name in original.hardware}
    return [
        result.model_copy(update={"pareto": [name for name, front in fronts.items() if result.name in front]})
        for result in finished
    ]


def _front(hardware: str, results: Iterable[VariantResult]) -> Iterator[str]:
    """Yield the variants that no other equals or beats in both quality and energy, and beats in one."""
    points = {
        result.name: (quality(result), -result.hardware[hardware].energy_joules)
        for result in results
        if result.status == "done"
    }
    for name, point in points.items():
        rivals = (other for other in points.values() if other != point)
        if not any(
            all(theirs >= ours for theirs, ours in zip(rival, point, strict=True)) for rival in rivals
        ):
            yield name


def quality(result: VariantResult) -> float:
    """Return the metric, higher is better; without one, the signal-to-noise ratio against the original."""
    if result.metric is not None:
        return result.metric.value if result.metric.better == "higher" else -result.metric.value
    return result.agreement.snr_db if result.agreement is not None else 0.0


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
