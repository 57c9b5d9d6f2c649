"""A YAML file as a tree whose every value knows its place; inheritance, variables and matrices."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from compress.errors import RecipeError, did_you_mean

Scalar: TypeAlias = str | int | float | bool | None
MAX_VALUES = 10_000
"""Values in one file, aliases written out: more is a file made to exhaust memory."""

_MENTION = re.compile(r"\$\{([^{}]*)\}")
_YAML = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file; lines and columns count from 1."""

    path: Path
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"

    def error(self, message: str) -> RecipeError:
        """Return the error that says `message` about this place."""
        return RecipeError(f"{self}: {message}")


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a YAML file, with its place."""

    value: dict[str, Node] | tuple[Node, ...] | Scalar
    place: Place
    key: Place
    """Where the key of this value stands; the same as `place` for what has no key."""

    @property
    def entries(self) -> dict[str, Node]:
        """The entries of a mapping, none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> tuple[Node, ...]:
        """The items of a list, none for anything else."""
        return self.value if isinstance(self.value, tuple) else ()

    def plain(self) -> Any:
        """Return the value without places: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, tuple) else self.value

    def written(self) -> str:
        """Return the value as YAML writes it on one line; text stays without quotes."""
        return self.value if isinstance(self.value, str) else json.dumps(self.plain())

    def shown(self) -> str:
        """Return the value for a message: on one line, not too long."""
        text = json.dumps(self.plain(), ensure_ascii=False)
        return text if len(text) <= 40 else f"{text[:37]}..."

    def mapping(self, what: str) -> dict[str, Node]:
        """Return the entries.

        Raises:
            RecipeError: the value is not a mapping; the message calls it `what`.
        """
        if not isinstance(self.value, dict):
            raise self.place.error(f"{what} should be a mapping of keys to values, not {self.shown()}")
        return self.value

    def find(self, steps: tuple[int | str, ...]) -> Node:
        """Return the node that `steps` lead to, or the last one on the way that exists."""
        node = self
        for step in steps:
            if isinstance(step, str) and step in node.entries:
                node = node.entries[step]
            elif isinstance(step, int) and step < len(node.items):
                node = node.items[step]
        return node


def read(path: Path) -> Node:
    """Read a YAML file and all that it extends, with variables and matrices written out.

    Four keys of the top level are consumed: ``extends`` (a file to start from, merged deeply; the
    extending file wins), ``vars`` (values for ``${name}``; ``${env:NAME}`` reads the environment),
    and ``matrix`` (axes over which the entries of ``variants`` that mention them are repeated).

    Raises:
        RecipeError: the file cannot be read or composed; the message begins with the place.
    """
    root = _inherit(path, Place(path), ())
    entries = dict(root.entries)
    names = _variables(entries.pop("vars", None))
    axes = _axes(entries.pop("matrix", None), names)
    variants = entries.pop("variants", None)
    expanded = {key: _substitute(node, names) for key, node in entries.items()}
    if variants is not None:
        written_out = _expand(variants, names, axes) if variants.entries else _substitute(variants, names)
        expanded["variants"] = written_out
    return replace(root, value=expanded)


def _inherit(path: Path, named_at: Place, below: tuple[Path, ...]) -> Node:
    if path.resolve() in below:
        raise named_at.error(f"extends leads back to {path}: a recipe cannot extend itself")
    root = _parse(path, named_at)
    entries = dict(root.mapping("a recipe"))
    parent = entries.pop("extends", None)
    root = replace(root, value=entries)
    if parent is None:
        return root
    if not isinstance(parent.value, str):
        raise parent.place.error(f"extends should be the path of a recipe, not {parent.shown()}")
    return _merge(_inherit(path.parent / parent.value, parent.place, (*below, path.resolve())), root)


def _merge(base: Node, over: Node) -> Node:
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = _merge(merged[key], node) if key in merged else node
    return replace(over, value=merged)


def _parse(path: Path, named_at: Place) -> Node:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        where = "" if named_at.path == path else f"{named_at}: "
        raise RecipeError(f"{where}{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Place(path, line).error("the file is not UTF-8 text") from error
    yaml = YAML(typ="safe", pure=True)
    try:
        raw = yaml.compose(text)
        if raw is None:
            raise Place(path).error("the file is empty; a recipe begins with 'version: 1'")
        return _Builder(path, yaml).build(raw)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(path, mark.line + 1, mark.column + 1) if mark else Place(path)
        # Some of ruamel's problems repeat the excerpt that its own printing shows.
        problem = str(error.problem or error.context).splitlines()[0].partition("  in ")[0]
        raise place.error(f"not valid YAML: {problem}") from error
    except YAMLError as error:
        raise Place(path).error(f"not valid YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise Place(path).error("values are nested too deeply") from error


class _Builder:
    """Turns ruamel's nodes into ours: duplicate keys, foreign tags and endless aliases are refused."""

    def __init__(self, path: Path, yaml: YAML) -> None:
        self.path = path
        self.yaml = yaml
        self.count = 0

    def build(self, raw: Any, key: Any = None, inside: tuple[int, ...] = ()) -> Node:
        place = self._place(raw)
        self.count += 1
        if id(raw) in inside:
            raise place.error("an alias may not refer to a value that contains it")
        if raw.tag.startswith("!"):
            raise place.error(f"a recipe has no tags such as {raw.tag}")
        if self.count > MAX_VALUES:
            raise place.error(f"more than {MAX_VALUES} values, aliases written out")
        inside = (*inside, id(raw))
        value: Any
        if isinstance(raw, MappingNode):
            value = self._mapping(raw, inside)
        elif isinstance(raw, SequenceNode):
            value = tuple(self.build(item, None, inside) for item in raw.value)
        else:
            value = _scalar(self.yaml, raw.value, raw.tag, place)
        return Node(value, place, place if key is None else self._place(key))

    def _mapping(self, raw: MappingNode, inside: tuple[int, ...]) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in raw.value:
            place = self._place(key)
            if not isinstance(key, ScalarNode):
                raise place.error("a key should be a word")
            node = self.build(value, key, inside)
            if key.tag == f"{_YAML}merge":
                merged |= node.mapping("what '<<' merges")
            elif key.value in entries:
                first = entries[key.value].key.line
                raise place.error(f"key {key.value!r} stands here a second time (first in line {first})")
            else:
                entries[key.value] = node
        return merged | entries

    def _place(self, raw: Any) -> Place:
        mark = raw.start_mark
        return Place(self.path, mark.line + 1, mark.column + 1)


def _scalar(yaml: YAML, text: str, tag: str, place: Place) -> Scalar:
    kind = tag.removeprefix(_YAML)
    if kind in ("int", "float", "bool", "null"):
        try:
            value: Scalar = yaml.constructor.construct_object(ScalarNode(tag, text))
        except ValueError as error:
            raise place.error(f"{text[:20]!r} is not a number") from error
        return value
    return text


def _environment(name: str, place: Place) -> Node:
    if name not in os.environ:
        raise place.error(f"environment variable {name!r} is not set")
    yaml, text = YAML(typ="safe", pure=True), os.environ[name]
    tag = str(yaml.resolver.resolve(ScalarNode, text, (True, False)))
    return Node(_scalar(yaml, text, tag, place), place, place)


def _substitute(node: Node, names: Mapping[str, Node]) -> Node:
    """Write out every ``${name}`` in keys and values; a value that is one mention keeps its type."""
    if isinstance(node.value, tuple):
        return replace(node, value=tuple(_substitute(item, names) for item in node.value))
    if isinstance(node.value, dict):
        entries: dict[str, Node] = {}
        for key, value in node.value.items():
            name = _text(key, value.key, names)
            if name in entries:
                raise value.key.error(f"two keys are called {name!r}")
            entries[name] = _substitute(value, names)
        return replace(node, value=entries)
    if not isinstance(node.value, str):
        return node
    whole = _MENTION.fullmatch(node.value)
    if whole:
        return replace(_named(whole[1], node.place, names), place=node.place, key=node.key)
    return replace(node, value=_text(node.value, node.place, names))


def _text(text: str, place: Place, names: Mapping[str, Node]) -> str:
    def write(mention: re.Match[str]) -> str:
        node = _named(mention[1], place, names)
        if isinstance(node.value, dict | tuple):
            raise place.error(f"{mention[0]} is a list or a mapping, which cannot stand inside text")
        return node.written()

    return _MENTION.sub(write, text)


def _named(name: str, place: Place, names: Mapping[str, Node]) -> Node:
    if name.startswith("env:"):
        return _environment(name.removeprefix("env:"), place)
    if name not in names:
        raise place.error(f"nothing is called ${{{name}}}{did_you_mean(name, names)}")
    return names[name]


def _mentions(node: Node) -> set[str]:
    if isinstance(node.value, str):
        return set(_MENTION.findall(node.value))
    inner = (*node.items, *node.entries.values())
    return set(_MENTION.findall(" ".join(node.entries))).union(*map(_mentions, inner))


def _variables(node: Node | None) -> dict[str, Node]:
    """Return what ``vars`` defines; one variable may use those above it."""
    names: dict[str, Node] = {}
    for name, value in node.mapping("vars").items() if node else ():
        names[name] = _substitute(value, names)
    return names


def _axes(node: Node | None, names: Mapping[str, Node]) -> dict[str, tuple[Node, ...]]:
    axes: dict[str, tuple[Node, ...]] = {}
    for name, values in node.mapping("matrix").items() if node else ():
        if not values.items:
            raise values.place.error(f"matrix axis {name!r} should be a list of values, not {values.shown()}")
        if name in names:
            raise values.key.error(f"{name!r} is in vars and in matrix; rename one")
        axes[name] = _substitute(values, names).items
    return axes


def _expand(variants: Node, names: Mapping[str, Node], axes: Mapping[str, tuple[Node, ...]]) -> Node:
    """Repeat every variant over the axes of the matrix that its name or its settings mention."""
    expanded: dict[str, Node] = {}
    for name, node in variants.entries.items():
        used = _mentions(node) | set(_MENTION.findall(name))
        chosen = [axis for axis in axes if axis in used]
        for values in itertools.product(*(axes[axis] for axis in chosen)):
            known = {**names, **dict(zip(chosen, values, strict=True))}
            written = _text(name, node.key, known)
            if written in expanded:
                raise node.key.error(_collision(name, written, chosen))
            expanded[written] = _substitute(node, known)
    return replace(variants, value=expanded)


def _collision(name: str, written: str, axes: list[str]) -> str:
    absent = [f"${{{axis}}}" for axis in axes if f"${{{axis}}}" not in name]
    advice = f"; put {' and '.join(absent)} into the name" if absent else ""
    return f"two variants are called {written!r}{advice}"
