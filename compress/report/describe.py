"""A pass in words, from its one definition: the names, values and defaults of its settings."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Any

from compress.errors import InputError, PassError
from compress.passes.base import REGISTRY, Pass, get

BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "minLength": "length at least",
    "maxLength": "length at most",
    "minItems": "length at least",
    "maxItems": "length at most",
}
"""Keywords of JSON Schema in words."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a pass."""

    name: str
    default: str
    """As a recipe writes it; empty where there is none."""
    allowed: str
    """Type or choices, and bounds."""
    description: str


def catalogue() -> dict[str, type[Pass]]:
    """Return every pass by name, sorted."""
    return dict(sorted(REGISTRY.items()))


def find(name: str) -> type[Pass]:
    """Return the pass of that name.

    Raises:
        InputError: there is none.
    """
    try:
        return get(name)
    except PassError as error:
        raise InputError(str(error)) from error


def paragraphs(kind: type[Pass]) -> list[str]:
    """Return the paragraphs of a pass's docstring, each on one line; indented blocks stay as they are."""
    blocks = (inspect.getdoc(kind) or "").split("\n\n")
    return [block if "\n " in f"\n{block}" else " ".join(block.split()) for block in blocks]


def settings(kind: type[Pass]) -> list[Setting]:
    """Return the settings of a pass: its own in order, then those that every pass has."""
    schema = kind.model_json_schema()
    shared, own = (
        list(Pass.model_fields),
        [name for name in kind.model_fields if name not in Pass.model_fields],
    )
    return [_setting(name, schema["properties"][name], schema) for name in (*own, *shared)]


def _setting(name: str, field: dict[str, Any], schema: dict[str, Any]) -> Setting:
    default = field.get("default", "")
    return Setting(
        name,
        default if isinstance(default, str) else json.dumps(default),
        _allowed(field, schema.get("$defs", {})),
        " ".join(field.get("description", "").split()),
    )


def _allowed(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return _allowed(definitions[name], definitions)
    if "anyOf" in field:
        return " or ".join(_allowed(choice, definitions) for choice in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(map(str, field.get("enum", [field.get("const")])))
    kind = field.get("type", "any value")
    if kind == "array":
        kind = f"list of {_allowed(field.get('items', {}), definitions)}"
    if kind == "object" and "properties" in field:
        kind = f"mapping with {', '.join(field['properties'])}"
    return ", ".join([kind, *(f"{words} {field[key]}" for key, words in BOUNDS.items() if key in field)])
