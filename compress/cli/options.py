"""Arguments and options that several commands have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)
]
ModelPath = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="An ONNX file, or package:NAME/inner/path.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else to stdout.")]


class PlainForm(TyperGroup):
    """A group of commands that runs the first one where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the first command before arguments that name none."""
        if not args or args[0] not in self.commands:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


def print_json(**fields: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(fields, indent=1))
