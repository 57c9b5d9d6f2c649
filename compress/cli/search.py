"""The command that searches for variants of a model without a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.options import Json
from compress.cli.recipes import finish
from compress.errors import InputError

commands = typer.Typer()

AnyModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="What a recipe calls model: an ONNX file, a Hugging Face folder, FILE.py:function, ...",
        show_default=False,
    ),
]
Calibration = Annotated[
    str, typer.Option("--data", metavar="FILE.py:FUNCTION", help="Function that yields calibration batches.")
]
Evaluation = Annotated[
    str | None,
    typer.Option(
        "--evaluation",
        metavar="FILE.py:FUNCTION",
        help="Function that yields batches to score on, which the search does not see; --data if left out.",
    ),
]
Hardware = Annotated[str, typer.Option("--hardware", metavar="ID", help="The profile that prices variants.")]
Minimise = Annotated[
    str, typer.Option("--minimise", help="energy, seconds, dram_bytes, flash, file or macs.")
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS|%",
        help="How much worse the metric may be, on labels of batches held out of calibration.",
    ),
]
MinSnr = Annotated[
    float | None,
    typer.Option("--min-snr", metavar="DB", help="Decibels that the outputs keep; needs no labels."),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="Limit on a cost, as in flash=400kB or energy=50%; may be repeated.",
    ),
]
Metric = Annotated[str, typer.Option("--metric", help="The metric that may drop.")]
Evaluations = Annotated[
    int, typer.Option("--evaluations", help="Variants that may be made and measured on the way.")
]
Sampler = Annotated[
    str,
    typer.Option(
        "--sampler",
        metavar="NAME|MODULE:CLASS",
        help="Who chooses variants: milp, nsga2, tpe, random, qubo, or a dimod.Sampler of yours.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Allow code outside this folder, and .pt2 files, to run.")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Ignore the results of earlier runs and do all work again.")
]


@commands.command(
    epilog="Example: compress search model.onnx --data data.py:batches --hardware stm32u575 --max-drop 1%"
)
def search(
    model: AnyModel,
    data: Calibration,
    hardware: Hardware = "cpu",
    minimise: Minimise = "energy",
    max_drop: MaxDrop = None,
    min_snr: MinSnr = None,
    limit: Limit = None,
    metric: Metric = "accuracy",
    evaluation: Evaluation = None,
    evaluations: Evaluations = 24,
    sampler: Sampler = "milp",
    output: Output = Path("runs/search"),
    as_json: Json = False,
    trust: Trust = False,
    fresh: Fresh = False,
) -> None:
    """Find the cheapest variants of a model under limits.

    Bits of weights and activations and shares of channels are chosen layer by layer. Every variant of the
    frontier becomes an ONNX file in DIR, beside results.json, report.html and variants.yaml, which a recipe
    can hold. A search that was stopped continues where it stopped.
    """
    from compress import engine  # brings pydantic, which help does without
    from compress.recipe import of_search

    recipe = of_search(
        model,
        calibration=data,
        evaluation=evaluation or data,
        metric=metric if max_drop is not None or evaluation is not None else None,
        wanted={
            "minimise": minimise,
            "hardware": hardware,
            "evaluations": evaluations,
            "sampler": sampler,
            "limits": {"drop": max_drop, "min_snr": min_snr, **_limits(limit or [])},
        },
    )
    finish(engine.run(recipe, output, trust=trust, fresh=fresh), output, as_json)


def _limits(written: list[str]) -> dict[str, str]:
    """Return limits by quantity.

    Raises:
        InputError: one is not written as NAME=VALUE.
    """
    found = {}
    for each in written:
        name, equals, value = each.partition("=")
        if not equals:
            raise InputError(f"--limit {each!r} has no '='; write it as flash=400kB")
        found[name.strip()] = value.strip()
    return found
