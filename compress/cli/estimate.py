"""The commands below ``estimate``: one for each question about cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import typer

from compress import codec, diagnose, estimator, recipe, report, source
from compress.cli.options import Json, ModelPath, PlainForm, print_json
from compress.errors import DoesNotRunError, InputError, first_problem

if TYPE_CHECKING:
    from compress.estimator import Coded, Cost, Estimate, ParallelEstimate, PointEstimate
    from compress.estimator.measuring import Measured


T = TypeVar("T")


class _Questions(PlainForm):
    moved: ClassVar[Mapping[str, str]] = {
        "--deadline": "compress estimate clock MODEL --deadline 20ms",
        "--rate": "compress estimate clock MODEL --deadline 50/s",
        "--devices": "compress estimate split MODEL --devices 4 --parallel tensor",
        "--parallel": "compress estimate split MODEL --devices 4 --parallel tensor",
        "--microbatches": "compress estimate split MODEL --devices 4 --parallel pipeline:8",
        "--prompt": "compress estimate generation MODEL --prompt 512 --tokens 128",
        "--tokens": "compress estimate generation MODEL --prompt 512 --tokens 128",
    }
    """Options that belong to another command, each with an example of it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse options of another command, and name that command."""
        if not args or args[0] not in self.commands:
            for option in (each.partition("=")[0] for each in args):
                if option in self.moved:
                    raise InputError(f"{option} belongs to another command: write '{self.moved[option]}'")
        return super().parse_args(ctx, args)


commands = typer.Typer(
    cls=_Questions,
    help="Estimate energy, traffic and time of any ONNX file.",
    rich_markup_mode=None,
)

Hardware = Annotated[
    list[str] | None,
    typer.Option(
        "--hardware",
        metavar="ID",
        help="A profile, or a .yaml file; may be repeated. Without it, three profiles are used.",
    ),
]
NamedHardware = Annotated[
    list[str],
    typer.Option("--hardware", metavar="ID", help="A profile, or a .yaml file; may be repeated."),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=SIZES",
        help="Shape of an input, as in x=1x3x224x224, or size of an open dimension, as in past=512; "
        "may be repeated.",
    ),
]
Zeros = Annotated[
    Path | None,
    typer.Option(
        "--zeros",
        metavar="FILE.json",
        help='Fraction of zeros by value name, as in {"relu_3": 0.6}, for hardware that skips zeros.',
    ),
]


@dataclass(frozen=True)
class _Split:
    """How devices share the work."""

    mode: Literal["data", "tensor", "pipeline"]
    in_flight: int = 1


def _seconds(text: str) -> float:
    """Return the seconds from one inference to the next: ``0.02``, ``20ms`` or ``50/s``."""
    number, scale = text, 1.0
    for unit, seconds in (("/s", -1.0), ("ms", 1e-3), ("us", 1e-6), ("s", 1.0)):
        if text.endswith(unit):
            number, scale = text.removesuffix(unit), seconds
            break
    try:
        value = float(number)
    except ValueError as error:
        raise typer.BadParameter(f"{text} is not a time; write 0.02, 20ms or 50/s") from error
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text} must be above 0 and finite")
    return 1 / value if scale < 0 else value * scale


def _split(text: str) -> _Split:
    """Return what ``data``, ``tensor``, ``pipeline`` or ``pipeline:8`` says."""
    match text.split(":"):
        case ["data" | "tensor" | "pipeline" as mode]:
            return _Split(mode)
        case ["pipeline" as mode, count] if count.isdecimal() and int(count) > 0:
            return _Split(mode, int(count))
    raise typer.BadParameter(f"{text} is unknown; write data, tensor, pipeline or pipeline:N")


@commands.command(epilog="Example: compress estimate model.onnx --hardware eyeriss-v1 --shape x=1x3x224x224")
def inference(
    model: ModelPath,
    hardware: Hardware = None,
    shape: Shape = None,
    zeros: Zeros = None,
    decode_at: Annotated[
        str | None,
        typer.Option(
            "--decode-at",
            metavar="PLACE",
            help="Take weights as entropy-coded, and decoded when they leave PLACE: dram, glb, rf or a "
            "memory of the profile. With load, the runtime decodes them as it starts.",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Also run the model on one core of this machine; joules need an energy meter."
        ),
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    as_json: Json = False,
) -> None:
    """Estimate energy, traffic and time of one inference; the word "inference" may be left out.

    There are three more commands: "compress estimate clock" finds the voltage and clock for a deadline,
    "compress estimate split" divides the work among several devices, and "compress estimate generation"
    takes the prompt and the tokens of a language model.
    """
    path, sizes, fractions = source.locate(model, Path()), _shapes(shape), _read_zeros(zeros)
    coded = _coded(path, decode_at) if decode_at is not None else None
    found, refused = _on_each(
        hardware, lambda name: estimator.estimate(path, name, shapes=sizes, zeros=fractions, coded=coded)
    )
    measured = _measure(path, sizes) if measure else None
    if not as_json:
        report.tables.show(*report.estimates.of_inference([*found.values()], refused, measured, layers))
        _warn(found.values(), refused)
        return
    hide = None if layers else {"layers"}
    scores = {one.hardware: one.score().model_dump(mode="json", exclude=hide) for one in found.values()}
    more = {"measured": asdict(measured)} if measured else {}
    print_json(schema=1, model=model, hardware=scores, refused=refused, **more)


@commands.command(epilog="Example: compress estimate clock model.onnx --hardware gap9 --deadline 20ms")
def clock(
    model: ModelPath,
    hardware: NamedHardware,
    deadline: Annotated[
        float,
        typer.Option(
            "--deadline",
            metavar="TIME",
            parser=_seconds,
            help="Time from one inference to the next: 20ms, 0.02 (seconds), or a rate such as 50/s.",
        ),
    ],
    shape: Shape = None,
    zeros: Zeros = None,
    as_json: Json = False,
) -> None:
    """Find the voltage and clock that meet a deadline with the least energy.

    The profile must state operating points; only some do.
    """
    path, sizes, fractions = source.locate(model, Path()), _shapes(shape), _read_zeros(zeros)
    found, refused = _on_each(
        hardware,
        lambda name: estimator.compare_points(
            path, name, deadline_seconds=deadline, shapes=sizes, zeros=fractions
        ),
    )
    if as_json:
        points = {
            estimator.load(name).id: [_point_record(one) for one in each] for name, each in found.items()
        }
        print_json(schema=1, model=model, deadline_seconds=deadline, points=points, refused=refused)
        return
    for name, each in found.items():
        report.tables.show(*report.estimates.of_points(estimator.load(name), each, deadline))
        _warn([each[0].estimate])
    _warn([], refused)


@commands.command(
    epilog="Example: compress estimate split model.onnx --hardware h200 --devices 4 --parallel tensor"
)
def split(
    model: ModelPath,
    hardware: NamedHardware,
    devices: Annotated[int, typer.Option("--devices", metavar="N", min=1, help="Devices of the same kind.")],
    parallel: Annotated[
        _Split,
        typer.Option(
            "--parallel",
            metavar="HOW",
            parser=_split,
            help="How they divide the work: data (whole inferences), tensor (a part of every layer), "
            "pipeline (consecutive layers), or pipeline:N with N inferences in flight.",
        ),
    ],
    shape: Shape = None,
    zeros: Zeros = None,
    as_json: Json = False,
) -> None:
    """Estimate inference on several devices, compared with one device.

    The profile must state the link between devices; only some do.
    """
    path, sizes, fractions = source.locate(model, Path()), _shapes(shape), _read_zeros(zeros)

    def on_several(name: str) -> list[ParallelEstimate]:
        ask = partial(estimator.estimate_parallel, path, name, parallel=parallel.mode, shapes=sizes)
        counts = sorted({1, devices})
        return [ask(devices=n, zeros=fractions, microbatches=parallel.in_flight) for n in counts]

    found, refused = _on_each(hardware, on_several)
    if as_json:
        records = {name: [_parallel_record(one) for one in each] for name, each in found.items()}
        print_json(schema=1, model=model, parallel=parallel.mode, hardware=records, refused=refused)
        return
    report.tables.show(*report.estimates.of_devices(found, devices))
    _warn([], refused)


@commands.command(
    epilog="Example: compress estimate generation model.onnx --hardware h200 --prompt 512 --tokens 128"
)
def generation(
    model: ModelPath,
    prompt: Annotated[
        int, typer.Option("--prompt", metavar="N", min=1, help="Tokens of the prompt, read in one run.")
    ],
    tokens: Annotated[
        int, typer.Option("--tokens", metavar="N", min=1, help="Tokens written after it, one a run.")
    ],
    hardware: Hardware = None,
    as_json: Json = False,
) -> None:
    """Estimate a language model reading a prompt and writing tokens."""
    path = source.locate(model, Path())
    found, refused = _on_each(
        hardware, lambda name: estimator.estimate_generation(path, name, prompt=prompt, tokens=tokens)
    )
    if as_json:
        records = {
            name: {
                "prompt": _cost_record(one.prefill),
                "each_token": _cost_record(one.token),
                "all": _cost_record(one.total),
            }
            for name, one in found.items()
        }
        print_json(schema=1, model=model, prompt=prompt, tokens=tokens, hardware=records, refused=refused)
        return
    report.tables.show(report.estimates.of_generation(found))
    _warn([], refused)


def _on_each(hardware: list[str] | None, ask: Callable[[str], T]) -> tuple[dict[str, T], dict[str, str]]:
    """Return the answers by hardware, and why the model does not run on the others.

    Raises:
        DoesNotRunError: it runs on none.
    """
    found: dict[str, T] = {}
    refused: dict[str, str] = {}
    for name in hardware or recipe.DEFAULT_HARDWARE:
        try:
            found[name] = ask(name)
        except DoesNotRunError as error:
            refused[name] = str(error)
    if not found:
        raise DoesNotRunError("; ".join(refused.values()))
    return found, refused


def _shapes(given: list[str] | None) -> dict[str, tuple[int, ...] | int]:
    return dict(map(_shape, given or ()))


def _shape(text: str) -> tuple[str, tuple[int, ...] | int]:
    name, _, written = text.rpartition("=")
    sizes = written.split("x")
    if not name or not all(size.isdecimal() for size in sizes):
        raise InputError(f"--shape {text}: write NAME=SIZES, such as x=1x3x224x224 or past=512")
    return name, tuple(map(int, sizes)) if len(sizes) > 1 else int(written)


def _read_zeros(path: Path | None) -> dict[str, float]:
    from pydantic import TypeAdapter, ValidationError  # which help does without

    if path is None:
        return {}
    try:
        return TypeAdapter(dict[str, float]).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; write fractions by value name") from error


def _coded(path: Path, decode_at: str) -> Coded:
    if codec.is_packed(path):
        return estimator.Coded(codec.coded_bytes(path), decode_at)
    return estimator.coded.by_entropy(source.open_onnx(path), decode_at)


def _measure(path: Path, shapes: Mapping[str, tuple[int, ...] | int]) -> Measured:
    feeds = diagnose.samples.random_feeds(source.read_onnx(path), shapes)
    return estimator.measuring.measure(path, feeds, threads=1)


def _warn(found: Iterable[Estimate], refused: Mapping[str, str] = MappingProxyType({})) -> None:
    remarks = [line for one in found for line in report.estimates.remarks(one)]
    for line in (*remarks, *refused.values()):
        typer.echo(line, err=True)


def _cost_record(cost: Cost) -> dict[str, object]:
    ends = {"energy_low": cost.energy_low, "energy_high": cost.energy_high}
    return {**{each.name: getattr(cost, each.name) for each in fields(cost) if each.name != "drawn"}, **ends}


def _point_record(one: PointEstimate) -> dict[str, object]:
    return {
        "name": one.name,
        "volts": one.volts,
        "hertz": one.hertz,
        "seconds": one.estimate.total.seconds,
        "inference_joules": one.estimate.total.energy_joules,
        "idle_joules": one.idle_joules,
        "energy_joules": one.energy_joules,
        "meets": one.meets,
    }


def _parallel_record(one: ParallelEstimate) -> dict[str, object]:
    return {
        "devices": one.devices,
        "energy_joules": one.total.energy_joules,
        "energy_low": one.total.energy_low,
        "energy_high": one.total.energy_high,
        "energy": dict(one.total.energy),
        "link_bytes": one.link_bytes,
        "seconds": one.total.seconds,
        "seconds_between": one.seconds_between,
        "bubble_seconds": one.bubble_seconds,
    }
