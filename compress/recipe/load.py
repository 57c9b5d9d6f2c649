"""Recipes: a YAML file becomes frozen values, or one message that says what is wrong and where.

Checking a recipe reads files but runs none of them: functions are looked up in the source text,
packages are found and not imported, and no pass does any work.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from compress.errors import InputError, PassError, RecipeError, did_you_mean, first_problem
from compress.estimator.files import ids, is_file, profile_id
from compress.passes.base import Pass, get
from compress.recipe import document, references
from compress.recipe.budget import Budget
from compress.recipe.document import Node
from compress.recipe.values import DataFunctions, MetricChoice, Recipe, Settings, Variant
from compress.recipe.wanted import Search
from compress.results import METRICS

COMPOSITION = ("variants", "extends", "vars", "matrix")
"""Keys of a recipe beside those of `Settings`."""

BESIDE_VARIANTS = ("results.json", "report.html", "log.txt", "variants.yaml")
"""What a run writes beside the folders of its variants."""

_WORDS = {"tuple_type": "Input should be a list", "model_type": "Input should be a mapping of keys to values"}
"""Messages of pydantic that speak of Python types, in the words of YAML."""
_VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_Model = TypeVar("_Model", bound=BaseModel)


def load(path: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: something is wrong; the message is ``file:line:column: what; did you mean ...``.
    """
    path = Path(path)
    root = references.resolve(document.read(path), path.parent)
    entries = dict(root.entries)
    named = entries.pop("variants", None)
    settings = _validated(Settings, replace(root, value=entries), also=COMPOSITION)
    _check_data(settings, entries)
    if settings.budget:
        settings = settings.model_copy(update={"budget": _budget(entries["budget"], settings)})
    if settings.search is not None:
        settings = settings.model_copy(update={"search": _search(entries["search"], settings)})
    elif named is None:
        raise root.place.error("'variants' is missing; name at least one, such as 'int8: [int8-static]'")
    elif not named.mapping("variants"):
        raise named.place.error("there are no variants; name at least one, such as 'int8: [int8-static]'")
    entries = named.entries if named is not None else {}
    variants = tuple(_variant(name, node, settings) for name, node in entries.items())
    return Recipe(path=path, title=_title(path), variants=variants, **dict(settings))


def _title(path: Path) -> str:
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        text = line.strip().lstrip("#").strip()
        # Editors find a schema by a comment of this form; it says nothing about the recipe.
        if text and not text.startswith("yaml-language-server:"):
            return text if line.startswith("#") else ""
    return ""


def _check_data(settings: Settings, entries: Mapping[str, Node]) -> None:
    metric = settings.metric
    if metric and metric.name in METRICS and not (settings.data and settings.data.evaluation):
        raise entries["metric"].place.error(f"metric {metric.name} needs evaluation data; add 'data'")


def of_search(
    model: str, *, calibration: str, evaluation: str, metric: str | None, wanted: Mapping[str, Any]
) -> Recipe:
    """Return a recipe of one search, whose references are relative to the folder of this process.

    Args:
        model: the model, as a recipe writes it.
        calibration: function that yields calibration batches.
        evaluation: function that yields batches to score on.
        metric: what a limit on the drop is about, and what is scored; None for neither.
        wanted: what is searched for, as a recipe writes it.

    Raises:
        InputError: something is wrong with it.
    """
    limits = {name: value for name, value in wanted["limits"].items() if value is not None}
    hardware = wanted["hardware"]
    if not (Path(hardware).is_file() if is_file(hardware) else hardware in ids()):
        raise InputError(f"unknown hardware {hardware!r}{did_you_mean(hardware, ids())}")
    try:
        return Recipe(
            version=1,
            path=Path("search.yaml"),
            title=f"search for variants of {model}",
            model=model,
            data=DataFunctions(calibration=calibration, evaluation=evaluation),
            metric=MetricChoice(name=metric) if metric else None,
            hardware=(hardware,),
            search=Search.model_validate({**wanted, "limits": limits}),
            variants=(),
        )
    except ValidationError as error:
        raise InputError(f"search: {first_problem(error)}") from error


def _search(node: Node, settings: Settings) -> Search:
    """Return what a search is asked for, with its profile."""
    wanted = _validated(Search, node, "search")
    hardware = wanted.hardware or next(iter(settings.hardware), None)
    if hardware is None:
        raise node.place.error("a search needs hardware; name it here, or under hardware")
    if not (settings.data and settings.data.calibration):
        raise node.place.error("a search needs calibration data; add 'data'")
    if wanted.limits.drop is not None and not (settings.metric and settings.metric.name in METRICS):
        raise node.place.error(
            f"a limit on the drop needs a metric that has a name, one of {', '.join(METRICS)}; "
            "without labels, write limits: {min_snr: 25}"
        )
    return wanted.model_copy(update={"hardware": hardware})


def _budget(node: Node, settings: Settings) -> Budget:
    budget = _validated(Budget, node, "budget")
    hardware = budget.hardware or next(iter(settings.hardware), None)
    if budget.hardware and budget.hardware not in settings.hardware:
        scored = did_you_mean(budget.hardware, settings.hardware)
        raise node.entries["hardware"].place.error(
            f"the recipe does not score {budget.hardware!r}: name it under hardware{scored}"
        )
    needs = {
        "energy": (hardware, "hardware to estimate it on"),
        "dram": (hardware, "hardware to estimate it on"),
        "latency": (
            settings.latency and settings.data,
            "data, and 'latency' above 0, the number of timed runs",
        ),
        "drop": (settings.metric, "a metric"),
    }
    for quantity in budget.limits:
        has, what = needs.get(quantity, (True, ""))
        if not has:
            raise node.entries[quantity].key.error(f"a limit on {quantity} needs {what}")
    return budget.model_copy(update={"hardware": hardware and profile_id(hardware)})


def _variant(name: str, node: Node, settings: Settings) -> Variant:
    if not _VARIANT_NAME.fullmatch(name) or name in BESIDE_VARIANTS:
        raise node.key.error(
            f"{name!r} cannot name a variant and its folder; use letters, digits, '.', '_', '+' and '-'"
        )
    for key, item in node.entries.items():
        if key not in ("passes", "budget"):
            raise item.key.error(f"unknown key {key!r}; a variant is a list of passes, or passes and budget")
    listed = node.entries.get("passes", node)
    if not isinstance(listed.value, tuple):
        raise listed.place.error(
            f"variant {name!r} should be a list of passes, not {listed.shown()}; [] is the original"
        )
    passes = tuple(_pass(item) for item in listed.items)
    _check_order(name, list(zip(passes, listed.items, strict=True)), settings.data)
    budget = settings.budget if passes else None
    if own := node.entries.get("budget"):
        budget = None if own.value is None else _budget(own, settings)
    return Variant(name=name, passes=passes, budget=budget)


def _pass(node: Node) -> Pass:
    if len(node.entries) == 1:
        name, settings = next(iter(node.entries.items()))
    elif isinstance(node.value, str):
        name, settings = node.value, replace(node, value={})
    elif len(node.entries) > 1:
        first, second, *_ = node.entries
        raise node.entries[second].key.error(
            f"a pass has one name; indent {second!r} deeper if it is a setting of {first!r}"
        )
    else:
        raise node.place.error(f"a pass is a name, or 'name: {{settings}}', not {node.shown()}")
    try:
        kind = get(name)
    except PassError as error:
        raise settings.key.error(str(error)) from error
    return _validated(kind, replace(settings, value={}) if settings.value is None else settings, name)


def _check_order(name: str, passes: Sequence[tuple[Pass, Node]], data: DataFunctions | None) -> None:
    quantizer = None
    for step, node in passes:
        if quantizer and step.needs_float:
            raise node.place.error(
                f"variant {name!r}: {step.name} needs float weights, and {quantizer} before it quantizes "
                f"them; put {step.name} first"
                if step.name != quantizer
                else f"variant {name!r}: {quantizer} quantizes, and can do so only once"
            )
        if step.needs_quantized and not quantizer:
            raise node.place.error(
                f"variant {name!r}: {step.name} mends what another pass quantized; put it behind that one"
            )
        if step.needs_calibration and not (data and data.calibration):
            raise node.place.error(
                f"variant {name!r}: {step.name} reads calibration data, and the recipe has none; add 'data'"
            )
        quantizer = quantizer if step.leaves_float() else step.name


def _validated(kind: type[_Model], node: Node, what: str = "", also: Iterable[str] = ()) -> _Model:
    """Return `node` as a `kind`; messages begin with `what`, and `also` are keys that are read elsewhere."""
    node.mapping(what or "a recipe")
    try:
        # Through JSON, because strict mode then takes a list for a tuple, but still no text for a number.
        return kind.model_validate_json(json.dumps(node.plain()), strict=True)
    except ValidationError as error:
        raise _complaint(kind, node, what, error.errors(), also) from error


def _complaint(
    kind: type[BaseModel], node: Node, what: str, mistakes: list[ErrorDetails], also: Iterable[str]
) -> RecipeError:
    """Return the error of the first mistake; unknown keys come first, as a misspelt key is missing, too."""
    mistake = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    *path, last = steps = mistake["loc"] or ("",)
    found = node.find(mistake["loc"])
    prefix = f"{what}: " if what else ""
    dotted = ".".join(map(str, steps))
    if mistake["type"] == "extra_forbidden":
        known = [*_fields(kind, path), *also] if not path else _fields(kind, path)
        return found.key.error(f"{prefix}unknown key {last!r}{did_you_mean(str(last), known)}")
    if mistake["type"] == "missing":
        return found.place.error(f"{prefix}{dotted!r} is missing")
    words = _WORDS.get(mistake["type"]) or mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "value_error":
        return found.place.error(f"{prefix}{dotted}: {words}" if dotted else f"{prefix}{words}")
    return found.place.error(f"{prefix}{words.replace('Input', dotted, 1)}, not {found.shown()}")


def _fields(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Return the keys that the model at `path` inside of `kind` knows."""
    for step in path:
        annotation = kind.model_fields[step].annotation if step in kind.model_fields else None
        inner = [type_ for type_ in (annotation, *get_args(annotation)) if isinstance(type_, type)]
        models = [type_ for type_ in inner if issubclass(type_, BaseModel)]
        if not models:
            return []
        kind = models[0]
    return list(kind.model_fields)
