"""What every HTML page is made of: files beside the templates, figures as JSON, one file written whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup

from compress import units
from compress.errors import writing
from compress.report.plots.theme import template

ASSETS = Path(__file__).with_name("assets")
FILTERS = ("si", "ratio", "span", "number", "signed", "share", "cosine")
"""Functions of `compress.units` that templates may use."""


def rendered(name: str, figures: Mapping[str, Any], **values: Any) -> str:
    """Return a page: every string of the user's is escaped, and scripts and figures are part of it.

    Args:
        name: file of the template in the folder of assets.
        figures: figures, as `figure` returns them, in any structure.
        values: what the template names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {each: getattr(units, each) for each in FILTERS}
    themes = {
        "light": _plain(template().to_plotly_json()),
        "dark": _plain(template(dark=True).to_plotly_json()),
    }
    return environment.get_template(name).render(
        figures=_embedded({"templates": themes, **figures}),
        style=asset("report.css"),
        plotly=asset("plotly.min.js"),
        **values,
    )


def asset(name: str) -> Markup:
    """Return a file that goes into a page as it stands."""
    return Markup((ASSETS / name).read_text(encoding="utf-8"))


def figure(drawn: go.Figure, label: str) -> dict[str, Any]:
    """Return what a page needs of a figure: it has headings and templates of its own."""
    content = drawn.to_plotly_json()
    layout = {key: value for key, value in content["layout"].items() if key not in {"template", "title"}}
    return {"data": _plain(content["data"]), "layout": _plain(layout), "label": label}


def save(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page, whole or not at all.

    Raises:
        StoreError: the file could not be written.
    """
    path = Path(path)
    scratch = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    return path


def _plain(value: Any) -> Any:
    """Round to five digits, more than a screen can show, and replace numbers that are not finite by None."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _embedded(value: Any) -> Markup:
    """Return JSON for a script element: nothing in it ends the element or starts a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return Markup(text.replace("</", "\\u003c/").replace("<!", "\\u003c!"))
