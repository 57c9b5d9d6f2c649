"""The commands on recipes and their runs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress import engine, report
from compress import recipe as recipes
from compress.cli.options import Json, RecipePath

if TYPE_CHECKING:
    from compress.results import Results

commands = typer.Typer()


@commands.command(epilog="Example: compress run recipes/digits.yaml --output runs/digits")
def run(
    recipe: RecipePath,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the results; runs/NAME_OF_RECIPE if left out."
        ),
    ] = None,
    as_json: Json = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Allow code outside the recipe's folder, and .pt2 files, to run."),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ignore the results of earlier runs and do all work again.")
    ] = False,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", metavar="NAME", help="Run this variant alone; may be repeated."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the traceback of a variant's unexpected error.")
    ] = False,
) -> None:
    """Run a recipe: compress a model and score every variant.

    Every variant becomes an ONNX file in DIR, beside results.json and report.html. A run that was
    stopped continues where it stopped; finished work is not done again. DIR/log.txt keeps the
    tracebacks of unexpected errors.
    """
    loaded = recipes.load(recipe)
    folder = output or Path("runs", recipe.stem)
    with engine.log.printed() if verbose else nullcontext():
        results = engine.run(loaded, folder, trust=trust, fresh=fresh, variants=variant or ())
    finish(results, folder, as_json)


def finish(results: Results, folder: Path, as_json: bool) -> None:
    """Write the report of a run, print its results, and end with the exit code that they call for."""
    report.write(results, folder / "report.html")
    _print_results(results, folder, as_json)
    if any(one.status == "failed" for one in results.variants):
        raise typer.Exit(1)
    if any(one.limits_missed for one in results.variants):
        raise typer.Exit(3)


@commands.command(epilog="Example: compress check recipes/digits.yaml")
def check(recipe: RecipePath, as_json: Json = False) -> None:
    """Check a recipe, and that what it names exists; nothing is run."""
    loaded = recipes.load(recipe)
    if as_json:
        typer.echo(loaded.model_dump_json(indent=1))
        return
    table = report.tables.new("variant", "passes", "limits")
    for variant in loaded.variants:
        limits = variant.budget.limits if variant.budget else {}
        table.add_row(
            variant.name,
            "\n".join(map(str, variant.passes)) or "none: the original",
            "\n".join(f"{quantity} {limit}" for quantity, limit in limits.items()),
        )
    count = len(loaded.variants)
    typer.echo(f"{recipe} is valid: {count} variant{'s' * (count > 1)} of {loaded.model}\n")
    report.tables.show(table)


@commands.command(epilog="Example: compress schema > recipe.schema.json")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Begin a recipe with the comment "yaml-language-server: $schema=recipe.schema.json", and an editor
    that knows the YAML language server completes and checks it as you write.
    """
    typer.echo(json.dumps(recipes.schema(), indent=1))


@commands.command(name="report", epilog="Example: compress report runs/digits")
def show_report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Print an earlier run again, and renew its report.html."""
    from compress.results import Results  # brings pydantic, which help does without

    results = Results.load(folder / "results.json")
    report.write(results, folder / "report.html")
    _print_results(results, folder, as_json)


def _print_results(results: Results, folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(results.model_dump_json(indent=1, by_alias=True))
        return
    report.show(results)
    typer.echo(f"\n{folder / 'results.json'}\n{folder / 'report.html'}")
