"""Write the reference pages, and the tables of the README, from docstrings, passes and hardware profiles.

    .venv/bin/python docs/build.py

A test compares the pages with what this would write.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any

from pydantic import BaseModel

import compress
import compress.passes
from compress import estimator
from compress.estimator import catalogue
from compress.passes.base import REGISTRY, Pass
from compress.recipe import Budget, schema
from compress.recipe.wanted import Limits, Search
from compress.report import describe
from compress.trainable import operators
from compress.trainable.operators.table import TRAINING

FOLDER = Path(__file__).parent
SECTIONS = ("Args", "Attributes", "Raises")


def pages() -> dict[Path, str]:
    """Return every page by its path; the README with its tables renewed."""
    made = {
        "passes.md": _passes(),
        "hardware.md": _hardware(),
        "recipe.md": _recipe(),
        "operators.md": _operators(),
        "api.md": _api(),
    }
    found = {
        FOLDER / name: f"<!-- Written by docs/build.py -->\n\n{text.strip()}\n" for name, text in made.items()
    }
    readme = FOLDER.parent / "README.md"
    return {readme: _with_tables(readme.read_text(encoding="utf-8")), **found}


def _with_tables(readme: str) -> str:
    """Return the README with the tables between its comments written anew."""
    first = [(f"[{name}](docs/passes.md#{name})", _summary(REGISTRY[name])) for name in _catalogue()]
    known = [(f"`{name}`", catalogue.load(name).title) for name in estimator.ids()]
    tables = {"passes": _table(("pass", "what it does"), first), "hardware": _table(("id", "what"), known)}
    for name, table in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = readme.partition(start)
        readme = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    return readme


def _summary(kind: type[Pass]) -> str:
    return _markdown(describe.paragraphs(kind)[0])


def _catalogue() -> list[str]:
    """Return the names of the passes that come with the package, whatever else is registered."""
    return sorted(name for name, kind in REGISTRY.items() if kind.__module__.startswith("compress.passes."))


def _passes() -> str:
    parts = [
        "# Passes",
        "`compress passes NAME` prints the same. In Python each pass is a class of `compress.passes`, "
        "with the settings as keyword arguments.",
    ]
    for name in _catalogue():
        kind = REGISTRY[name]
        rows = [
            (f"`{one.name}`", _code(one.default), one.allowed, _markdown(one.description))
            for one in describe.settings(kind)
        ]
        parts += [f"## {name}", f"`compress.passes.{kind.__name__}`"]
        parts += map(_markdown, describe.paragraphs(kind))
        parts += [_table(("setting", "default", "may be", "meaning"), rows)]
    return "\n\n".join(parts)


def _hardware() -> str:
    parts = [
        "# Hardware profiles",
        "`compress hardware ID` prints every number with its range, its scope and its source. A profile "
        "is one YAML file; `--hardware my.yaml` and a recipe's `hardware: [my.yaml]` take one of your own; "
        "`compress hardware new ID` starts it and `compress hardware fit` fits it to measurements.",
    ]
    for name in estimator.ids():
        profile = catalogue.load(name)
        sources = [(f"`{key}`", text) for key, text in profile.sources.items()]
        parts += [f"## {name}", f"**{profile.title}.** {profile.scope}", _table(("source", ""), sources)]
    return "\n\n".join(parts)


def _recipe() -> str:
    found = schema()
    names = {"variants", *found["properties"]} - {"version"}
    ordered = ["version", *(name for name in found["properties"] if name in names)]
    keys = [(f"`{name}`", *_described(found["properties"][name])) for name in ordered]
    limits = [
        (f"`{name}`", " ".join((field.description or "").split()))
        for name, field in Budget.model_fields.items()
    ]
    return "\n\n".join(
        [
            "# Recipes",
            "A recipe is a YAML file. `compress check RECIPE` checks it and runs nothing; `compress schema` "
            "prints the JSON Schema that editors use to complete and check one. A mistake is told as "
            "`file:line:column: what is wrong`.",
            f"```yaml\n{Path(FOLDER.parent, 'recipes/digits.yaml').read_text().strip()}\n```",
            "## Keys",
            _table(("key", "default", "meaning"), keys),
            "## Budget",
            _markdown(inspect.getdoc(Budget) or ""),
            _table(("limit", "meaning"), limits),
            "## Search",
            _markdown(inspect.getdoc(Search) or ""),
            _table(("key", "default", "meaning"), _fields(Search)),
            _markdown(inspect.getdoc(Limits) or ""),
            _table(("limit", "meaning"), [(name, text) for name, _, text in _fields(Limits)]),
        ]
    )


def _fields(kind: type[BaseModel]) -> list[tuple[str, str, str]]:
    """Return the name, default and description of every field."""
    described = kind.model_json_schema()["properties"]
    return [(f"`{name}`", *_described(each)) for name, each in described.items()]


def _operators() -> str:
    families: dict[str, list[str]] = {}
    for domain, name in operators.names():
        entry = operators.lookup(domain, name, sys.maxsize)
        if entry is not None and domain != TRAINING:
            family = entry.function.__module__.rpartition(".")[2]
            families.setdefault(family, []).append(f"{domain}.{name}" if domain else name)
    return "\n\n".join(
        [
            "# Operators that can be trained",
            "`Model.to_torch` and the passes that train compute these ONNX operators, from opset 11 on, and "
            "their gradients. Each passes ONNX's own node tests; those of com.microsoft agree with the "
            "runtime. Any other operator in a graph, control flow above all, is refused by the name of its "
            "node; quantization does without training.",
            _table(("family", "operators"), ((name, ", ".join(families[name])) for name in sorted(families))),
        ]
    )


def _described(field: dict[str, Any]) -> tuple[str, str]:
    default = field.get("default")
    shown = "" if default in (None, {}, []) else str(default).replace("'", "")
    return _code(shown), _markdown(" ".join(field.get("description", "").split()))


def _api() -> str:
    from compress import errors
    from compress.estimator import Cost, Estimate
    from compress.governor import Replay
    from compress.results import Results, VariantResult
    from compress.seek import Point

    public = [getattr(compress, name) for name in sorted(compress.__all__) if name != "__version__"]
    parts = [
        "# Python interface",
        "`import compress`; passes are in `compress.passes`, see [passes](passes.md).",
    ]
    for thing in [*public, Point, Cost, Estimate, Replay, Results, VariantResult]:
        parts += _documented(thing)
    tree = next(part for part in (errors.__doc__ or "").split("\n\n") if part.startswith("    CompressError"))
    parts += [
        "## Errors",
        "In `compress.errors`. All derive from `CompressError`.",
        f"```text\n{textwrap.dedent(tree)}\n```",
    ]
    return "\n\n".join(parts)


def _documented(thing: Any) -> Iterator[str]:
    """Yield heading, signature and text of a function, or of a class and its public members."""
    home = "compress" if thing.__name__ in compress.__all__ else thing.__module__
    yield f"## {home}.{thing.__name__}"
    if not inspect.isclass(thing):
        yield f"```python\n{_signature(thing)}\n```"
        yield _text(thing)
        return
    yield _text(thing)
    fields = _fields(thing)
    if fields:
        yield _table(("field", "type", "meaning"), fields)
    for name, member in vars(thing).items():
        if not inspect.getdoc(member) or (name.startswith("_") and name != "__call__"):
            continue
        if isinstance(member, property | cached_property):
            yield f"**`{name}`** {_text(member)}"
        elif isinstance(member, FunctionType | classmethod):
            function = getattr(member, "__func__", member)
            yield f"```python\n{_signature(function)}\n```\n\n{_text(function)}"


def _signature(function: Any) -> str:
    """Return ``name(arguments) -> type`` with the annotations as written in the source."""
    signature = inspect.signature(function)
    shown = []
    keyword_only = False
    for name, parameter in signature.parameters.items():
        if name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        shown.append(f"{name}: {parameter.annotation}{default}")
    arguments = ", ".join(shown)
    if len(arguments) > 80:
        arguments = "\n    " + ",\n    ".join(shown) + ",\n"
    return f"{function.__name__}({arguments}) -> {signature.return_annotation}"


def _fields(kind: type) -> list[tuple[str, str, str]]:
    """Return name, type and docstring of the annotated fields of a class, read from its source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    found = []
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = " ".join(str(following.value.value).split())
        found.append((f"`{node.target.id}`", f"`{ast.unparse(node.annotation)}`", _markdown(text)))
    return found


def _text(thing: Any) -> str:
    """Return a docstring as Markdown: sections become lists."""
    lines: list[str] = []
    section = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section = True
            lines.append(f"*{line}*\n")
        elif section and re.match(r"    \S", line):
            name, _, meaning = line.strip().partition(": ")
            lines.append(f"- `{name}`: {meaning}")
        else:
            lines.append(line.strip() if not section else f"  {line.strip()}".rstrip())
    return _markdown("\n".join(lines).strip())


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    headers = list(headers)
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
