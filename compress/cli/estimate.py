"""The command ``estimate``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from compress.errors import InputError
from compress.report import tables
from compress.units import si

if TYPE_CHECKING:
    from rich.table import Table

    from compress.estimator import Coded, Cost, Estimate, ParallelEstimate, PointEstimate, Profile
    from compress.estimator.meter import Measured

APART = {
    "--deadline": ("--rate", "--devices", "--prompt", "--measure", "--layers", "--decode-at"),
    "--rate": ("--devices", "--prompt", "--measure", "--layers", "--decode-at"),
    "--devices": ("--prompt", "--measure", "--layers", "--decode-at"),
    "--prompt": ("--measure", "--layers", "--decode-at", "--zeros", "--shape"),
}
"""Options of `estimate` that ask for different things."""
NAMING = ("--deadline", "--rate", "--devices")
"""Options of `estimate` that only some profiles have the numbers for."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else to stdout.")]
Hardware = Annotated[
    list[str] | None,
    typer.Option(
        "--hardware", metavar="ID", help="A profile or its .yaml file; may be repeated. Three if left out."
    ),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=SIZES",
        help="Sizes of an input, or of one open dimension as in past=512; may be repeated.",
    ),
]
Zeros = Annotated[
    Path | None,
    typer.Option(
        "--zeros",
        metavar="FILE.json",
        help='Fractions of zeros by value name, as in {"relu_3": 0.6}, for hardware that skips them.',
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        help="Find the cheapest voltage and clock that end one inference in this time.",
    ),
]
Rate = Annotated[
    float | None, typer.Option("--rate", metavar="PER_SECOND", help="The same, in inferences a second.")
]
Devices = Annotated[
    int | None,
    typer.Option("--devices", metavar="N", min=1, help="Run on so many devices of a kind; needs --parallel."),
]
Parallel = Annotated[
    Literal["data", "tensor", "pipeline"] | None,
    typer.Option(
        "--parallel", help="What the devices share out: inferences, every layer, or the layers in turn."
    ),
]
Microbatches = Annotated[
    int | None,
    typer.Option(
        "--microbatches", metavar="N", min=1, help="Inferences in flight in a pipeline; 1 if left out."
    ),
]
Prompt = Annotated[
    int | None,
    typer.Option(
        "--prompt", metavar="N", min=1, help="A language model that reads so many tokens; needs --tokens."
    ),
]
Tokens = Annotated[
    int | None, typer.Option("--tokens", metavar="N", min=1, help="Tokens that it writes after the prompt.")
]
DecodeAt = Annotated[
    str | None,
    typer.Option(
        "--decode-at",
        metavar="PLACE",
        help="Weights at their entropy, decoded behind dram, glb, rf or a memory of the profile, or at load.",
    ),
]
Measure = Annotated[
    bool,
    typer.Option("--measure", help="Run it here on one core too; joules need a meter."),
]


@dataclass(frozen=True)
class _Question:
    """What every estimate of one command has in common."""

    model: str
    path: Path
    shapes: Mapping[str, tuple[int, ...] | int]
    zeros: Mapping[str, float]

    def answer(self, **found: Any) -> None:
        """Print JSON."""
        typer.echo(json.dumps({"schema": 1, "model": self.model, **found}, indent=1))


def estimate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="An ONNX file, or package:NAME/inner/path.", show_default=False),
    ],
    hardware: Hardware = None,
    shape: Shape = None,
    zeros: Zeros = None,
    deadline: Deadline = None,
    rate: Rate = None,
    devices: Devices = None,
    parallel: Parallel = None,
    microbatches: Microbatches = None,
    prompt: Prompt = None,
    tokens: Tokens = None,
    decode_at: DecodeAt = None,
    measure: Measure = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    as_json: Json = False,
) -> None:
    """Estimate energy, traffic and time of any ONNX file."""
    given: dict[str, object] = {
        "--deadline": deadline,
        "--rate": rate,
        "--devices": devices,
        "--parallel": parallel,
    }
    given |= {"--measure": measure or None, "--layers": layers or None, "--shape": shape, "--zeros": zeros}
    given |= {"--prompt": prompt, "--tokens": tokens, "--decode-at": decode_at}
    _check_together({name for name, value in given.items() if value is not None}, bool(hardware))
    seconds = _seconds(deadline, rate)
    if microbatches is not None and parallel != "pipeline":
        raise InputError("--microbatches needs --parallel pipeline")
    shapes = dict(map(_shape, shape or ()))
    from compress.recipe import DEFAULT_HARDWARE
    from compress.source import locate

    question = _Question(model, locate(model, Path()), shapes, _read_zeros(zeros) if zeros else {})
    names = hardware or DEFAULT_HARDWARE
    if seconds is not None:
        _answer_points(question, names, seconds, as_json)
    elif devices is not None and parallel is not None:
        _answer_parallel(question, names, _Split(devices, parallel, microbatches or 1), as_json)
    elif prompt is not None and tokens is not None:
        _answer_generation(question, names, prompt, tokens, as_json)
    else:
        _answer(question, names, decode_at, measure, layers, as_json)


def _check_together(given: set[str], named: bool) -> None:
    """Refuse options of `estimate` that make no sense together."""
    for one, others in APART.items():
        for other in others:
            if {one, other} <= given:
                raise InputError(f"{one} and {other} do not go together")
    for pair in (("--devices", "--parallel"), ("--prompt", "--tokens")):
        if len(given & set(pair)) == 1:
            raise InputError(f"{' and '.join(pair)} go together: give both")
    for one in NAMING:
        if one in given and not named:
            raise InputError(f"{one} needs --hardware ID")


def _seconds(deadline: float | None, rate: float | None) -> float | None:
    """Return the time from one inference to the next, if it is given."""
    for name, number in (("--deadline", deadline), ("--rate", rate)):
        if number is not None and not 0 < number < math.inf:
            raise InputError(f"{name} {number:g}: must be above 0 and finite")
    return 1 / rate if rate is not None else deadline


def _shape(text: str) -> tuple[str, tuple[int, ...] | int]:
    name, _, written = text.rpartition("=")
    sizes = written.split("x")
    if not name or not all(size.isdecimal() for size in sizes):
        raise InputError(f"--shape {text}: write NAME=SIZES, such as x=1x3x224x224 or past=512")
    return name, tuple(map(int, sizes)) if len(sizes) > 1 else int(written)


def _read_zeros(path: Path) -> dict[str, float]:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(dict[str, float]).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise InputError(f"{path}: {where}{first['msg']}; write fractions by value name") from error


def _answer(
    question: _Question,
    names: Sequence[str],
    decode_at: str | None,
    measure: bool,
    layers: bool,
    as_json: bool,
) -> None:
    """Print estimates, and what was measured here."""
    from compress.estimator import estimate

    coded = _coded(question, decode_at) if decode_at is not None else None
    estimates = [
        estimate(question.path, name, shapes=question.shapes, zeros=question.zeros, coded=coded)
        for name in names
    ]
    measured = _measure(question) if measure else None
    if as_json:
        hide = None if layers else {"layers"}
        scores = {one.hardware: one.score().model_dump(mode="json", exclude=hide) for one in estimates}
        question.answer(hardware=scores, **({"measured": asdict(measured)} if measured else {}))
        return
    tables.show(_estimates_table(estimates, measured))
    if measured is not None:
        what = "energy " if measured.joules is None else "energy measured by "
        tables.show(f"\nmeasured on one core of this machine; {what}{measured.meter}")
    for one in estimates:
        if layers:
            tables.show(f"\n{one.hardware}", _layers_table(one))
        _warn(one)


def _coded(question: _Question, decode_at: str) -> Coded:
    from compress import codec
    from compress.estimator.coded import Coded, by_entropy
    from compress.estimator.loading import load

    if codec.is_packed(question.path):
        return Coded(codec.coded_bytes(question.path), decode_at)
    return by_entropy(load(question.path), decode_at)


def _measure(question: _Question) -> Measured:
    from compress.estimator.meter import measure, sample
    from compress.source import read_onnx

    feeds = sample(read_onnx(question.path), question.shapes)
    return measure(question.path, feeds, threads=1)


def _warn(one: Estimate) -> None:
    """Name to stderr what an estimate leaves out."""
    for operator, share in one.uncosted.items():
        typer.echo(
            f"{one.hardware}: arithmetic of {operator} is not counted ({share:.1%} of bytes)", err=True
        )
    for operator, share in one.on_host.items():
        typer.echo(f"{one.hardware}: {operator} runs on the host, left out ({share:.1%} of bytes)", err=True)


def _estimates_table(estimates: Sequence[Estimate], measured: Measured | None) -> Table:
    table = tables.new("hardware", "energy", "low to high", "DRAM traffic", "MACs", "time")
    for one in estimates:
        total = one.total
        cells = si(total.dram_bytes, "B"), si(total.macs, ""), si(total.seconds, "s")
        table.add_row(one.hardware, si(total.energy_joules, "J"), _range(total), *cells)
    if measured is not None:
        joules = "not measured" if measured.joules is None else si(measured.joules, "J")
        table.add_row("measured", joules, "", "", "", si(measured.seconds, "s"))
    return table


def _range(cost: Cost) -> str:
    return f"{si(cost.energy_low, 'J')} to {si(cost.energy_high, 'J')}"


def _layers_table(one: Estimate) -> Table:
    table = tables.new("layer", "operator", "energy", "DRAM traffic", "MACs", "time", "limited by", breaks=0)
    for layer in one.layers:
        cost = layer.cost
        cells = si(cost.dram_bytes, "B"), si(cost.macs, ""), si(cost.seconds, "s")
        table.add_row(layer.name, layer.op_type, si(cost.energy_joules, "J"), *cells, layer.bound)
    return table


def _answer_generation(
    question: _Question, names: Sequence[str], prompt: int, tokens: int, as_json: bool
) -> None:
    """Print what a language model's prompt and the tokens after it cost."""
    from compress.estimator import estimate_generation

    found = {name: estimate_generation(question.path, name, prompt=prompt, tokens=tokens) for name in names}
    parts = {
        name: {"prompt": one.prefill, "each token": one.token, "all": one.total}
        for name, one in found.items()
    }
    if as_json:
        records = {
            name: {part.replace(" ", "_"): asdict(cost) for part, cost in each.items()}
            for name, each in parts.items()
        }
        question.answer(prompt=prompt, tokens=tokens, hardware=records)
        return
    table = tables.new("hardware", "", "energy", "low to high", "DRAM traffic", "time")
    for name, each in parts.items():
        for part, cost in each.items():
            cells = si(cost.dram_bytes, "B"), si(cost.seconds, "s")
            table.add_row(name, part, si(cost.energy_joules, "J"), _range(cost), *cells)
    tables.show(table)


def _answer_points(question: _Question, names: Sequence[str], seconds: float, as_json: bool) -> None:
    """Print every operating point of every profile, the cheapest that meets the deadline first."""
    from compress.estimator import compare_points, load

    profiles = {name: load(name) for name in names}
    found = {
        name: compare_points(
            question.path, profile, deadline_seconds=seconds, shapes=question.shapes, zeros=question.zeros
        )
        for name, profile in profiles.items()
    }
    if as_json:
        points = {profiles[name].id: [_point_record(one) for one in each] for name, each in found.items()}
        question.answer(deadline_seconds=seconds, points=points)
        return
    for name, each in found.items():
        profile = profiles[name]
        tables.show(f"{profile.id}, one inference in {si(seconds, 's')}", _points_table(each))
        tables.show(f"{_verdict(each)}{_idle(profile)}\n")
        _warn(each[0].estimate)


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


def _points_table(points: Sequence[PointEstimate]) -> Table:
    table = tables.new("point", "clock", "time", "inference", "+ waiting", "= energy", "")
    for one in points:
        total = one.estimate.total
        joules = (total.energy_joules, one.idle_joules, one.energy_joules)
        cells = (si(one.hertz, "Hz"), si(total.seconds, "s"), *(si(each, "J") for each in joules))
        table.add_row(one.name, *cells, _strategy(one, points))
    return table


def _strategy(one: PointEstimate, points: Sequence[PointEstimate]) -> str:
    """Say what it means to choose a point."""
    if not one.meets:
        return "too slow"
    clocks = [other.hertz for other in points if other.meets]
    if len(clocks) > 1 and one.hertz == max(clocks):
        return "race to idle"
    return "slow and steady" if len(clocks) > 1 and one.hertz == min(clocks) else ""


def _verdict(points: Sequence[PointEstimate]) -> str:
    best = points[0]
    if best.meets:
        return f"The cheapest in time is {best.name} at {si(best.hertz, 'Hz')}."
    fastest = min(one.estimate.total.seconds for one in points)
    return f"No point is in time; the fastest takes {si(fastest, 's')}."


def _idle(profile: Profile) -> str:
    return "" if profile.idle_watts is not None else " It states no idle power: waiting counts as free."


@dataclass(frozen=True)
class _Split:
    devices: int
    parallel: Literal["data", "tensor", "pipeline"]
    microbatches: int


def _answer_parallel(question: _Question, names: Sequence[str], split: _Split, as_json: bool) -> None:
    """Print one inference on one device and on several."""
    from compress.estimator import estimate_parallel

    found = {
        name: [
            estimate_parallel(
                question.path,
                name,
                devices,
                split.parallel,
                shapes=question.shapes,
                zeros=question.zeros,
                microbatches=split.microbatches,
            )
            for devices in sorted({1, split.devices})
        ]
        for name in names
    }
    if as_json:
        records = {name: [_parallel_record(one) for one in each] for name, each in found.items()}
        question.answer(parallel=split.parallel, hardware=records)
        return
    table = tables.new("hardware", "devices", "energy", "low to high", "links", "time", "between results")
    for name, each in found.items():
        for one in each:
            times = si(one.total.seconds, "s"), si(one.seconds_between, "s")
            energy = si(one.total.energy_joules, "J"), _range(one.total)
            table.add_row(name, str(one.devices), *energy, si(one.link_bytes, "B"), *times)
    tables.show(table)
    used = max(each[-1].devices for each in found.values())
    if used < split.devices:
        tables.show(f"\nOnly {used} of {split.devices} devices have layers to run.")


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
