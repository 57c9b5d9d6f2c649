"""The commands that work on ONNX files without a recipe: compare, pack and unpack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress import codec, evaluate, report, source, units
from compress import recipe as recipes
from compress.cli.options import Json, ModelPath, print_json
from compress.errors import InputError

if TYPE_CHECKING:
    from compress.data import Data

commands = typer.Typer()


@commands.command(epilog="Example: compress compare original.onnx int8.onnx --recipe recipes/digits.yaml")
def compare(
    original: Annotated[
        str,
        typer.Argument(
            metavar="ORIGINAL", help="An ONNX file, or package:NAME/inner/path.", show_default=False
        ),
    ],
    variant: Annotated[
        str, typer.Argument(metavar="VARIANT", help="The ONNX file to compare with it.", show_default=False)
    ],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="RECIPE", help="Compare on the data of this recipe.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="FILE.py:FUNCTION", help="Compare on the batches that this function yields."
        ),
    ] = None,
    as_json: Json = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Allow code outside the recipe's folder to run.")
    ] = False,
) -> None:
    """Show where a variant loses accuracy and speed, and why.

    Works on any two ONNX files with the same inputs and outputs. Layers are matched by the names of
    their values. Without data the inputs are random numbers, which show less.
    """
    original_path, variant_path = source.locate(original, Path()), source.locate(variant, Path())
    described, batches = _comparison_data(recipe, data, trust)
    found = evaluate.compare(original_path, variant_path, batches, described=described)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        report.show_comparison(found)


def _comparison_data(recipe: Path | None, data: str | None, trust: bool) -> tuple[str, Data | None]:
    """Return the function that yields batches, by name and as data; evaluation data before calibration."""
    if recipe is not None and data is not None:
        raise InputError("give --recipe or --data, not both")
    if data is not None:
        if not data.rpartition(":")[0].endswith(".py"):
            raise InputError(f"--data {data}: write file.py:function")
        # Whoever names a file on the command line means it to run.
        return data, source.read_data(data, "comparison", home=Path(), trust=True)
    if recipe is None:
        return "", None
    loaded = recipes.load(recipe)
    functions = loaded.data
    named = functions and (functions.evaluation or functions.calibration)
    if not functions or not named:
        raise InputError(f"{recipe}: has no data to compare on; add 'data', or give --data")
    return named, source.read_data(
        named, "comparison", home=loaded.home, trust=trust, batch_axis=functions.batch_axis
    )


@commands.command(epilog="Example: compress pack model.onnx model.packed")
def pack(
    model: ModelPath,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The packed file.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Compress an ONNX file without loss into one packed file.

    External data are packed too. In Python, compress.open("OUT") runs the packed file in ONNX Runtime;
    "compress unpack" restores the ONNX file bit for bit.
    """
    before = codec.pack(source.locate(model, Path()), output).bytes
    after = output.stat().st_size
    if as_json:
        print_json(path=str(output), model_bytes=before, packed_bytes=after)
        return
    sizes = f"{units.si(before, 'B')} of ONNX in {units.si(after, 'B')}"
    typer.echo(f"{output}: {sizes}, {units.ratio(after, before)}")


@commands.command(epilog="Example: compress unpack model.packed model.onnx")
def unpack(
    packed: Annotated[Path, typer.Argument(metavar="IN", help="The packed file.", show_default=False)],
    output: Annotated[
        Path, typer.Argument(metavar="OUT.onnx", help="The ONNX file to write.", show_default=False)
    ],
) -> None:
    """Restore the ONNX file from a packed file, bit for bit.

    External data are written beside it, under the names that they had.
    """
    typer.echo(codec.unpack(packed, output))
