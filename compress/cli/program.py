"""The command line: parses, calls, prints. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from compress.cli import estimate, hardware
from compress.cli.estimate import Json
from compress.errors import CompressError, InputError, did_you_mean
from compress.report import tables

if TYPE_CHECKING:
    from compress.data import Data
    from compress.results import Results

# Everything else is imported where it is used: help and checks answer at once.


class _Guarded(TyperGroup):
    """Commands that turn the toolkit's errors into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except CompressError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            typer.echo("stopped; run the same command again to continue", err=True)
            raise typer.Exit(130) from error
        except BrokenPipeError as error:
            _silence_stdout()  # whoever read our output has seen enough
            raise typer.Exit(1) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _silence_stdout()
            typer.echo("error: the disk is full", err=True)
            raise typer.Exit(1) from error


def _silence_stdout() -> None:
    """Send what is still to be written nowhere, so that the flush at exit does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_Guarded,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"compress {version('compress-toolkit')}")
        raise typer.Exit


@app.callback()
def compress(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    """Make neural networks cheaper to run, and say in joules and bytes how much cheaper.

    Exit codes: 0 done, 1 something failed, 2 bad input, 3 a limit that the recipe states was missed.
    """


@app.command(epilog="Example: compress run recipes/digits.yaml --output runs/digits")
def run(
    recipe: RecipePath,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where results go; runs/NAME if left out."),
    ] = None,
    as_json: Json = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run code that the recipe names outside of its folder, and .pt2 files."),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do all work anew, whatever earlier runs left.")
    ] = False,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", metavar="NAME", help="Run this variant alone; may be repeated."),
    ] = None,
) -> None:
    """Run a recipe: compress, export, evaluate and score.

    Every variant becomes an ONNX file in DIR, beside results.json and report.html. A run that was
    stopped continues where it was; what is done already is not done again.
    """
    from compress import recipe as recipes

    loaded = recipes.load(recipe)
    known = [one.name for one in loaded.variants]
    for name in variant or ():
        if name not in known:
            raise InputError(f"{recipe}: there is no variant {name!r}{did_you_mean(name, known)}")
    folder = output or Path("runs", recipe.stem)
    # Only now: these take seconds to import, and a mistake in the recipe is told at once.
    from compress import engine
    from compress.report import html

    results = engine.run(loaded, folder, trust=trust, fresh=fresh, variants=variant or ())
    html.write(results, folder / "report.html")
    _print_results(results, folder, as_json)
    if any(one.status == "failed" for one in results.variants):
        raise typer.Exit(1)
    if any(one.limits_missed for one in results.variants):
        raise typer.Exit(3)


@app.command(epilog="Example: compress check recipes/digits.yaml")
def check(recipe: RecipePath, as_json: Json = False) -> None:
    """Check a recipe and all it points at; run nothing."""
    from compress import recipe as recipes

    loaded = recipes.load(recipe)
    if as_json:
        typer.echo(loaded.model_dump_json(indent=1))
        return
    table = tables.new("variant", "passes", "limits")
    for variant in loaded.variants:
        limits = variant.budget.limits if variant.budget else {}
        table.add_row(
            variant.name,
            "\n".join(map(str, variant.passes)) or "none: the original",
            "\n".join(f"{quantity} {limit}" for quantity, limit in limits.items()),
        )
    count = len(loaded.variants)
    typer.echo(f"{recipe} is valid: {count} variant{'s' * (count > 1)} of {loaded.model}\n")
    tables.show(table)


@app.command(epilog="Example: compress schema > recipe.schema.json")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    A recipe that begins with the comment "yaml-language-server: $schema=recipe.schema.json" is
    completed and checked while it is written.
    """
    from compress.recipe import schema

    typer.echo(json.dumps(schema(), indent=1))


@app.command(name="passes", epilog="Example: compress passes int8-static")
def show_passes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A pass.", show_default=False)] = None,
) -> None:
    """List the passes, or explain one with all its settings."""
    import compress.passes  # noqa: F401  (the catalogue registers every pass)
    from compress.passes.base import REGISTRY
    from compress.report import describe

    if name is None:
        table = tables.new("pass", "what it does")
        for known in sorted(REGISTRY):
            table.add_row(known, describe.paragraphs(REGISTRY[known])[0])
        tables.show(table)
        return
    if name not in REGISTRY:
        raise InputError(f"unknown pass {name!r}{did_you_mean(name, REGISTRY)}")
    kind = REGISTRY[name]
    tables.show(name, *(f"\n{paragraph}" for paragraph in describe.paragraphs(kind)))
    table = tables.new("setting", "default", "may be")
    for setting in describe.settings(kind):
        table.add_row(setting.name, setting.default, setting.allowed)
        table.add_row("", "", setting.description)
    tables.show("", table)


app.command(
    epilog="Example: compress estimate model.onnx --hardware eyeriss-v1 --shape x=1x3x224x224",
)(estimate.estimate)
app.add_typer(hardware.hardware, name="hardware")


@app.command(epilog="Example: compress compare original.onnx int8.onnx --recipe recipes/digits.yaml")
def compare(
    original: Annotated[
        str,
        typer.Argument(
            metavar="ORIGINAL", help="An ONNX file, or package:NAME/inner/path.", show_default=False
        ),
    ],
    variant: Annotated[
        str, typer.Argument(metavar="VARIANT", help="What was made of it.", show_default=False)
    ],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="RECIPE", help="Compare on the data of this recipe.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE.py:FUNCTION", help="Compare on what this function yields."),
    ] = None,
    as_json: Json = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run code that the recipe names outside of its folder.")
    ] = False,
) -> None:
    """Say where a variant loses accuracy and speed, and why.

    Works on any two ONNX files with the same inputs and outputs. Layers are found by the names of
    their values. Without data the inputs are random numbers, which show less.
    """
    from compress.source import locate

    original_path, variant_path = locate(original, Path()), locate(variant, Path())
    described, batches = _comparison_data(recipe, data, trust)
    from compress.evaluate import compare as compare_files

    found = compare_files(original_path, variant_path, batches, described=described)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return
    from compress.report import show_comparison

    show_comparison(found)


def _comparison_data(recipe: Path | None, data: str | None, trust: bool) -> tuple[str, Data | None]:
    """Return the function that yields batches, by name and as data; evaluation data before calibration."""
    from compress import recipe as recipes
    from compress.data import Data
    from compress.source import call

    if recipe is not None and data is not None:
        raise InputError("give --recipe or --data, not both")
    if data is not None:
        if not data.rpartition(":")[0].endswith(".py"):
            raise InputError(f"--data {data}: write file.py:function")
        # Whoever names a file on the command line means it to run.
        return data, Data(call(data, home=Path(), trust=True), "comparison")
    if recipe is None:
        return "", None
    loaded = recipes.load(recipe)
    named = loaded.data and (loaded.data.evaluation or loaded.data.calibration)
    if not named:
        raise InputError(f"{recipe}: names no data to compare on")
    return named, Data(call(named, home=loaded.home, trust=trust), "comparison")


@app.command(epilog="Example: compress pack model.onnx model.packed")
def pack(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="An ONNX file, or package:NAME/inner/path.", show_default=False),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The packed file.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Code an ONNX file without loss, into one packed file.

    External data go in too. compress.open("OUT") in Python is a session of ONNX Runtime on it;
    "compress unpack" restores the ONNX file bit for bit.
    """
    from compress import codec, units
    from compress.source import locate

    before = codec.pack(locate(model, Path()), output).bytes
    after = output.stat().st_size
    if as_json:
        typer.echo(json.dumps({"path": str(output), "model_bytes": before, "packed_bytes": after}, indent=1))
        return
    sizes = f"{units.si(before, 'B')} of ONNX in {units.si(after, 'B')}"
    typer.echo(f"{output}: {sizes}, {units.ratio(after, before)}")


@app.command(epilog="Example: compress unpack model.packed model.onnx")
def unpack(
    packed: Annotated[
        Path, typer.Argument(metavar="IN", help="What compress pack wrote.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT.onnx", help="The ONNX file to write.", show_default=False)
    ],
) -> None:
    """Restore the ONNX file that was packed, bit for bit.

    External data go beside it, under the names they had.
    """
    from compress import codec

    typer.echo(codec.unpack(packed, output))


@app.command(name="report", epilog="Example: compress report runs/digits")
def show_report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where a run wrote its results.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Print an earlier run again; write its report anew."""
    from compress.report import html
    from compress.results import Results

    results = Results.load(folder / "results.json")
    html.write(results, folder / "report.html")
    _print_results(results, folder, as_json)


def _print_results(results: Results, folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(results.model_dump_json(indent=1, by_alias=True))
        return
    from rich.console import Console

    from compress.report import terminal

    terminal.show(results, Console())
    typer.echo(f"\n{folder / 'results.json'}\n{folder / 'report.html'}")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign gets a question mark, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="compress")


if __name__ == "__main__":
    main()
