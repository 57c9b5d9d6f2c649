"""The commands below ``hardware``: list profiles, show one, start a new one, fit one to measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress import estimator, report
from compress.cli.options import PlainForm
from compress.errors import InputError
from compress.units import si

FACTORS = 3
"""Factors of the energy that a fit looks for; with fewer measurements it finds one for all."""

commands = typer.Typer(
    cls=PlainForm,
    help="List hardware profiles, show one, or make your own.",
    rich_markup_mode=None,
)


@commands.command(epilog="Example: compress hardware eyeriss-v1")
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A profile, or a .yaml file.", show_default=False)
    ] = None,
) -> None:
    """List hardware profiles, or show one: every number with its range and its source.

    The word "show" may be left out. "compress hardware new" starts a profile of your own, "compress
    hardware fit" fits a profile to what you measured, and "compress hardware calibrate" times this machine.
    """
    if name is None:
        table = report.tables.new("hardware", "what it is")
        for known in estimator.ids():
            table.add_row(known, estimator.load(known).title)
        report.tables.show(table)
        return
    profile = estimator.load(name)
    report.tables.show(profile.title, f"\n{profile.scope}\n")
    table = report.tables.new("number", "value", "low to high", "how known")
    for path, number in profile.quantities():
        bounds = f"{number.value * number.low_factor:.3g} to {number.value * number.high_factor:.3g}"
        known = f"{number.tag}, {number.scope}, {number.source}"
        table.add_row(path, f"{number.value:.3g}", bounds, known)
    report.tables.show(table, "", *(f"{key}: {text}" for key, text in profile.sources.items()))


@commands.command(name="new", epilog="Example: compress hardware new my-board --like cpu-arm")
def new_hardware(
    name: Annotated[str, typer.Argument(metavar="ID", help="Name of the new profile.", show_default=False)],
    like: Annotated[str, typer.Option("--like", metavar="ID", help="The profile to copy.")] = "cpu-arm",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; ID.yaml if left out."),
    ] = None,
) -> None:
    """Write a copy of a profile under a new name, for you to edit."""
    text = estimator.catalogue.renamed(like, name)
    path = output or Path(f"{name}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"{path} exists already; name another file with -o") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    typer.echo(path)


@commands.command(name="calibrate", epilog="Example: compress hardware calibrate")
def calibrate_cpu() -> None:
    """Time the runtime's kernels on this machine, for estimates on the profile cpu.

    Small networks run for half a minute on one thread: let nothing else run meanwhile. What was found is
    kept for this user, processor and version of ONNX Runtime, and replaces the times that come with the
    package.
    """
    found, path = estimator.calibration.calibrate(estimator.load("cpu"))
    table = report.tables.new(
        "kernel", "one call", "10⁹ parts", "10⁹ operations", "1 GB read", "of weights", "written"
    )
    for kernel, constants in sorted(found.constants.items()):
        table.add_row(
            kernel, *(si(each * 10 ** (9 * (place > 0)), "s") for place, each in enumerate(constants))
        )
    report.tables.show(found.machine, "", table, f"\n{path}")


@commands.command(
    name="fit",
    epilog="Example: compress hardware fit my-board.yaml measurements.json -o my-board-fitted.yaml",
)
def fit_hardware(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile, or a .yaml file.", show_default=False)
    ],
    measurements: Annotated[
        Path, typer.Argument(metavar="MEASUREMENTS.json", help="What you measured.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write.", show_default=False),
    ],
) -> None:
    """Fit a profile to what you measured on the device.

    MEASUREMENTS.json is a list with one object for each model:

    {"model": "a.onnx", "joules": 0.0012, "seconds": 0.03, "shapes": {"past": 64}}

    Joules and seconds are those of one inference. "shapes" may be left out; {"x": [1, 3, 96, 96]} is the
    shape of an input, {"past": 64} the size of an open dimension. Paths are relative to MEASUREMENTS.json.
    The times and energies of the profile are multiplied by the factors that fit best.
    """
    taken = estimator.fitting.read_measurements(measurements)
    start = estimator.load(profile)
    found = estimator.fit(start, taken, source=f"Fitted to {measurements.name}")
    estimator.fitting.save(found.profile.model_copy(update={"id": f"{start.id}-fitted"}), output)
    table = report.tables.new("model", "energy error", "time error", breaks=0)
    for one, joules, seconds in zip(taken, found.energy_errors, found.seconds_errors, strict=True):
        table.add_row(str(one.model), f"{joules:+.1%}", f"{seconds:+.1%}")
    factors = report.tables.new("fitted", "factor")
    for name, factor in found.scales.items():
        factors.add_row(name, si(factor, "W") if name == "static watts" else f"{factor:.3g}")
    report.tables.show(table, "", factors)
    if len(taken) < FACTORS:
        report.tables.show(
            "\nThere are too few measurements to tell all factors apart: some factors are equal, or 0. "
            "Measure more models."
        )
    elif not all(found.scales.values()):
        typer.echo(
            "\nA factor of 0 could not be told from the others. Measure more models, and more different ones."
        )
    typer.echo(f"\n{output}")
