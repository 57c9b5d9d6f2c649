"""The command line as a whole. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import compress
from compress.cli import estimate, govern, hardware, models, passes, recipes, search
from compress.engine import log
from compress.errors import CompressError


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
            _silence_stdout()  # the reader of our output, such as head, has stopped reading
            raise typer.Exit(1) from error
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            _say_unforeseen(error)
            raise typer.Exit(1) from error


def _say_unforeseen(error: Exception) -> None:
    """Tell of an error that no room has foreseen, in one line."""
    match error:
        case OSError(errno=errno.ENOSPC):
            _silence_stdout()
            message = "the disk is full"
        case OSError(filename=str(name), strerror=str(reason)):
            message = f"{name}: {reason}"
        case MemoryError():
            message = "this machine has not enough memory for it"
        case _:
            message = log.unexpected(error)
    typer.echo(f"error: {message}", err=True)


def _silence_stdout() -> None:
    """Discard what is still to be written, so that the flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_Guarded,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"compress {compress.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make neural networks cheaper to run, and say in joules and bytes how much cheaper.

    Exit codes: 0 done, 1 something failed, 2 bad input, 3 a limit that the recipe states was missed.
    """


app.add_typer(recipes.commands)
app.add_typer(search.commands)
app.add_typer(passes.commands)
app.add_typer(estimate.commands, name="estimate")
app.add_typer(hardware.commands, name="hardware")
app.add_typer(models.commands)
app.add_typer(govern.commands)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="compress")
