"""JSON Schema of a recipe: what an editor needs to complete and check one."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from compress.passes.base import REGISTRY
from compress.recipe.budget import Budget
from compress.recipe.values import Settings

_REFERENCE = "#/$defs/{model}"
_MENTION = {"$ref": _REFERENCE.format(model="mention")}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, with every pass and its settings, descriptions and defaults."""
    kinds: list[type[BaseModel]] = [Settings, Budget, *REGISTRY.values()]
    references, shared = models_json_schema([(kind, "validation") for kind in kinds], ref_template=_REFERENCE)
    definitions = {name: _open(kind) for name, kind in shared["$defs"].items()}
    recipe = definitions.pop(Settings.__name__)
    definitions["mention"] = {
        "type": "string",
        "pattern": r"\$\{[^{}]+\}",
        "description": "Filled in from vars, matrix or the environment.",
    }
    definitions["pass"] = _pass({name: references[kind, "validation"] for name, kind in REGISTRY.items()})
    definitions["variant"] = _variant(references[Budget, "validation"])
    recipe["properties"] |= _COMPOSITION
    # What is required may come from the recipe that this one extends.
    required = [*recipe.pop("required"), "variants"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **recipe,
        "title": "compress recipe",
        "description": "Which model to compress, in which ways, and what to score it on.",
        "anyOf": [{"required": ["extends"]}, {"required": required}],
        "$defs": definitions,
    }


_COMPOSITION: dict[str, dict[str, Any]] = {
    "variants": {
        "description": "Variants by name: a list of passes, or {passes: [...], budget: {...}}; "
        "[] is the original.",
        "type": "object",
        "additionalProperties": {"$ref": _REFERENCE.format(model="variant")},
    },
    "extends": {
        "description": "Path of a recipe to start from; it is merged deeply, and this file wins.",
        "type": "string",
    },
    "vars": {
        "description": "Values by name: ${name} is replaced by the value anywhere, ${env:NAME} by an "
        "environment variable.",
        "type": "object",
    },
    "matrix": {
        "description": "Lists by name: a variant that mentions ${name} is repeated for every value.",
        "type": "object",
        "additionalProperties": {"type": "array", "minItems": 1},
    },
}


def _pass(settings: dict[str, Any]) -> dict[str, Any]:
    described = {
        name: {
            "description": inspect.getdoc(REGISTRY[name]),
            "anyOf": [reference, {"type": "null"}, _MENTION],
        }
        for name, reference in settings.items()
    }
    with_settings = {
        "type": "object",
        "properties": described,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [{"enum": sorted(settings)}, with_settings, _MENTION]}


def _variant(budget: Any) -> dict[str, Any]:
    passes = {"type": "array", "items": {"$ref": _REFERENCE.format(model="pass")}}
    with_budget = {
        "type": "object",
        "properties": {"passes": passes, "budget": {"anyOf": [budget, {"type": "null"}, _MENTION]}},
        "required": ["passes"],
        "additionalProperties": False,
    }
    return {"anyOf": [passes, with_budget, _MENTION]}


def _open(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a mention stand wherever `schema` wants a value."""
    opened = {key: value for key, value in schema.items() if key != "title"}
    for key, value in opened.items():
        if key == "properties":
            opened[key] = {name: _mentionable(inner) for name, inner in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            opened[key] = _mentionable(value)
        elif key == "prefixItems":
            opened[key] = [_mentionable(inner) for inner in value]
        elif key in ("anyOf", "oneOf"):
            opened[key] = [_open(inner) for inner in value]
    return opened


def _mentionable(schema: dict[str, Any]) -> dict[str, Any]:
    inner = _open(schema)
    opened: dict[str, Any] = {"anyOf": [inner, _MENTION]}
    return opened | {key: inner.pop(key) for key in ("description", "default") if key in inner}
