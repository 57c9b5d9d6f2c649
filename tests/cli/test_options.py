"""What several commands have in common."""

import json
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from compress.cli.options import PlainForm, print_json

app = typer.Typer(cls=PlainForm, rich_markup_mode=None)


@app.command()
def first(name: Annotated[str, typer.Argument()] = "none", loud: bool = False) -> None:
    """Greet."""
    typer.echo(f"first {name} {loud}")


@app.command()
def second(name: str) -> None:
    """Greet another."""
    typer.echo(f"second {name}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "first none False"),
        ("x", "first x False"),
        ("--loud x", "first x True"),
        ("first x", "first x False"),
        ("second x", "second x"),
    ],
)
def test_the_first_command_is_meant_where_none_is_named(arguments: str, said: str) -> None:
    found = CliRunner().invoke(app, arguments.split())
    assert (found.exit_code, found.output) == (0, f"{said}\n")


def test_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(schema=1, sizes=[1, 2])
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "sizes": [1, 2]}
