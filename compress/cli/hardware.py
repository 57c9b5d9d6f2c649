"""The command ``hardware`` and what is below it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from compress.errors import InputError
from compress.report import tables
from compress.units import si

FACTORS = 3
"""Factors of the energy that `fit` looks for; fewer measurements share one."""


class _NameOrCommand(TyperGroup):
    """A group whose first word, where it is no command, is a profile to show."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


hardware = typer.Typer(
    cls=_NameOrCommand,
    subcommand_metavar="[NAME | COMMAND ...]",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog="Example: compress hardware eyeriss-v1",
)


@hardware.callback()
def list_hardware(ctx: typer.Context) -> None:
    """List hardware profiles, show one, or make your own.

    NAME, a profile or its .yaml file, shows its numbers, each with its range and its source.
    """
    from compress.estimator import catalogue

    if ctx.invoked_subcommand is None:
        table = tables.new("hardware", "what it is")
        for known in catalogue.ids():
            table.add_row(known, catalogue.load(known).title)
        tables.show(table)


@hardware.command(name="show", hidden=True)
def show_hardware(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Show a profile's numbers and their sources."""
    from compress.estimator import catalogue

    profile = catalogue.load(name)
    tables.show(profile.title, f"\n{profile.scope}\n")
    table = tables.new("number", "value", "low to high", "how known")
    for path, number in profile.quantities():
        bounds = f"{number.value * number.low_factor:.3g} to {number.value * number.high_factor:.3g}"
        known = f"{number.tag}, {number.scope}, {number.source}"
        table.add_row(path, f"{number.value:.3g}", bounds, known)
    tables.show(table, "", *(f"{key}: {text}" for key, text in profile.sources.items()))


@hardware.command(name="new", epilog="Example: compress hardware new my-board --like cpu-arm")
def new_hardware(
    name: Annotated[str, typer.Argument(metavar="ID", help="What it is called.", show_default=False)],
    like: Annotated[str, typer.Option("--like", metavar="ID", help="The profile to start from.")] = "cpu-arm",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where it goes; ID.yaml if left out."),
    ] = None,
) -> None:
    """Start a profile of your own, to be edited."""
    from compress.estimator import catalogue

    text = catalogue.renamed(like, name)
    path = output or Path(f"{name}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"{path} exists already; name another file with -o") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    typer.echo(path)


@hardware.command(
    name="fit",
    epilog="Example: compress hardware fit my-board.yaml measurements.json -o my-board-fitted.yaml",
)
def fit_hardware(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile, or its .yaml file.", show_default=False)
    ],
    measurements: Annotated[
        Path, typer.Argument(metavar="MEASUREMENTS.json", help="What was measured.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where the fitted one goes.", show_default=False),
    ],
) -> None:
    """Fit a profile to what you measured on the device.

    MEASUREMENTS.json is a list of one object a model:

    {"model": "a.onnx", "joules": 0.0012, "seconds": 0.03, "shapes": {"past": 64}}

    Joules and seconds are of one inference. Shapes, as of estimate, may be left out: {"x": [1, 3, 96, 96]}
    gives those of an input, {"past": 64} the size of an open dimension. Paths are relative to the file.
    Times and energies of the profile are multiplied by what fits best.
    """
    from compress.estimator import fit, load
    from compress.estimator.fitting import read_measurements, save

    taken = read_measurements(measurements)
    start = load(profile)
    found = fit(start, taken, source=f"Fitted to {measurements.name}")
    save(found.profile.model_copy(update={"id": f"{start.id}-fitted"}), output)
    table = tables.new("model", "energy error", "time error", breaks=0)
    for one, joules, seconds in zip(taken, found.energy_errors, found.seconds_errors, strict=True):
        table.add_row(str(one.model), f"{joules:+.1%}", f"{seconds:+.1%}")
    factors = tables.new("fitted", "factor")
    for name, factor in found.scales.items():
        factors.add_row(name, si(factor, "W") if name == "static watts" else f"{factor:.3g}")
    tables.show(table, "", factors)
    if len(taken) < FACTORS:
        tables.show("\nToo few to tell all factors apart: some share one, or are 0. Measure more models.")
    elif not all(found.scales.values()):
        tables.show("\nWhat is 0 could not be told apart: measure more, and more different, models.")
    typer.echo(f"\n{output}")
