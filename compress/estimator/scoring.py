"""From a model and a profile to an estimate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from compress import codec, source, units
from compress.errors import ModelError, about, did_you_mean
from compress.estimator import kernels, loops
from compress.estimator.batching import in_parts, samples
from compress.estimator.catalogue import as_profile
from compress.estimator.coded import Coded
from compress.estimator.cost import Clock, Cost, cost
from compress.estimator.deployment import Deployment, check_room
from compress.estimator.fusion import fuse
from compress.estimator.hardware import Number, Profile
from compress.estimator.residency import Homes
from compress.estimator.uncertainty import standard
from compress.estimator.workload import LayerWork, WorkloadReader
from compress.estimator.zeros import spread
from compress.graph import facts
from compress.graph.normalise import lift_constants
from compress.graph.optimized import as_run
from compress.graph.shapes import lay_out
from compress.results import HardwareScore, Latency, LayerScore, LoopScore

if TYPE_CHECKING:
    import onnx

    from compress.model import Model

Estimable: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | ir.Model | Model"
"""A path, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or a `compress.model.Model`."""


@dataclass(frozen=True)
class LayerCost:
    """One layer's cost."""

    name: str
    op_type: str
    cost: Cost
    bound: str
    """What limits it: compute, vector, or the name of a memory."""

    def __repr__(self) -> str:
        return f"LayerCost({self.name!r}, {self.op_type}: {self.cost}; limited by {self.bound})"


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of one inference on one hardware profile."""

    hardware: str
    layers: tuple[LayerCost, ...]
    uncosted: Mapping[str, float]
    """Operators whose arithmetic is unknown and left out, each with its share of all bytes."""
    on_host: Mapping[str, float]
    """Operators that the hardware leaves to its host, left out altogether, with their share of all bytes."""
    loops: Mapping[str, LoopScore] = field(default_factory=dict)
    """How often the body of each Loop, Scan and SequenceMap counts, by its name."""
    runs_as: Mapping[str, str] = field(default_factory=dict)
    """What a toolchain converts as it deploys the model here, and to what: ``{"float32": "bf16"}``."""
    timed: bool = False
    """Whether the seconds were measured on this machine, and energy follows from them."""

    def __repr__(self) -> str:
        return f"Estimate({self.hardware!r}: {self.total}; {units.count(len(self.layers), 'layer')})"

    @cached_property
    def total(self) -> Cost:
        """Sum over the layers."""
        return sum((layer.cost for layer in self.layers), Cost())

    def score(self) -> HardwareScore:
        """Return the estimate as a run's results store it."""
        total = self.total
        return HardwareScore(
            energy_joules=total.energy_joules,
            energy_low=total.energy_low,
            energy_high=total.energy_high,
            energy_draws=[float(f"{joules:.5g}") for joules in total.energy_draws],
            energy=dict(total.energy),
            dram_bytes=total.dram_bytes,
            bytes_moved=dict(total.bytes_moved),
            macs=total.macs,
            seconds=total.seconds,
            uncosted=dict(self.uncosted),
            on_host=dict(self.on_host),
            loops=dict(self.loops),
            runs_as=dict(self.runs_as),
            timed=self.timed,
            layers=[
                LayerScore(
                    name=layer.name,
                    op_type=layer.op_type,
                    energy=dict(layer.cost.energy),
                    dram_bytes=layer.cost.dram_bytes,
                    macs=layer.cost.macs,
                    seconds=layer.cost.seconds,
                    bound=layer.bound,
                    dram_weight_bytes=layer.cost.dram_weight_bytes,
                )
                for layer in self.layers
            ],
        )


def estimate(
    model: Estimable,
    hardware: str | os.PathLike[str] | Profile,
    *,
    shapes: Mapping[str, Sequence[int] | int] | None = None,
    zeros: Mapping[str, float] | None = None,
    seconds: Mapping[str, float] | None = None,
    rounds: Mapping[str, int] | None = None,
    coded: Coded | None = None,
    latency: Latency | None = None,
) -> Estimate:
    """Return what one inference of a model costs on some hardware, layer by layer.

    Args:
        model: a path, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or a `compress.Model`; not changed.
            The path of a packed file stands for the model in it. Its weights count as coded if the
            profile states where it decodes them (`decode_at`), and as they are otherwise.
        hardware: identifier of a profile, path of a YAML file, or a profile.
        shapes: shape by input name, or size by the name of a symbolic dimension, where the model leaves
            dimensions open; otherwise the batch (the first dimension, unless another one bears its name)
            is 1 and others are 128.
        zeros: fraction of zeros by value name, for hardware that compresses or skips them; zeros of
            weights are counted unless they are given. `compress.estimator.zeros.spread` says which other
            values a fraction stands for.
        seconds: measured time by layer name; it replaces the modelled time, also in the static energy.
        rounds: how often the body of a Loop runs, by the Loop's name, where the data decide it. If None, it
            is measured on the calibration data that a `compress.Model` has; a Loop of another model counts
            as often as it may run, or once where nothing limits it.
        coded: weights that are stored entropy-coded, and where they are decoded.
        latency: measured time of a run on this machine. On a profile of this machine it replaces the
            modelled time, which only tells how the layers share it; elsewhere it counts for nothing.

    Raises:
        HardwareError: there is no such profile, or it is not valid.
        DoesNotRunError: the hardware lacks a number type or the memory that the model needs.
        ModelError: the model cannot be read, its shapes cannot be found, or `zeros` or `seconds` do not
            fit it.
    """
    profile = as_profile(hardware)
    opened: AbstractContextManager[Estimable] = nullcontext(model)
    if isinstance(model, str | os.PathLike) and codec.is_packed(model):
        opened = codec.unpacked(model)
        if coded is None and profile.decode_at is not None:
            coded = Coded(codec.coded_bytes(model), profile.decode_at)
    with opened as found:
        work = read_workload(found, profile, shapes=shapes, zeros=zeros, rounds=rounds)
    layers = work.layers
    if coded is not None:
        layers = tuple(coded.applied(layer, profile) for layer in layers)
    clocks = _clocks(layers, profile, seconds or {})
    timed = latency is not None and profile.kernels is not None
    if latency is not None and timed:
        clocks = _shared(latency, clocks, lambda: _priced(layers, profile, work, clocks))
    costs = _priced(layers, profile, work, clocks)
    if profile.events is not None and profile.events.step_seconds is not None:
        costs.append(_steps(profile, profile.events.time_steps.draws * profile.events.step_seconds.draws))
    return Estimate(profile.id, tuple(costs), work.uncosted, work.on_host, work.loops, work.runs_as, timed)


def _clocks(
    layers: Sequence[LayerWork], profile: Profile, measured: Mapping[str, float]
) -> Sequence[Clock | None]:
    """Return the time of each layer that was measured, or that timed kernels tell."""
    for name in measured.keys() - {layer.name for layer in layers}:
        raise ModelError(f"seconds of {name!r}: no such layer{did_you_mean(name, (x.name for x in layers))}")
    timed = kernels.of_this_machine() if profile.kernels is not None else None
    known: dict[str, Clock] = {}
    if timed is not None:
        known = {layer.name: Clock(timed.seconds(layer)) for layer in layers}
    known |= {name: Clock(each, measured=True) for name, each in measured.items()}
    return [known.get(layer.name) for layer in layers]


def _steps(profile: Profile, seconds: np.ndarray) -> LayerCost:
    """Return what the time steps of an inference take by themselves, as a layer."""
    nothing = LayerWork("time steps", "", Number(kind="float", bits=32))
    whole, _ = cost(nothing, profile, {}, Clock(seconds))
    return LayerCost(nothing.name, nothing.op_type, whole, "time steps")


def _priced(
    layers: Sequence[LayerWork], profile: Profile, work: Workload, clocks: Iterable[Clock | None]
) -> list[LayerCost]:
    """Return the cost of every layer, each at its time where that is known."""
    found = []
    for layer, clock in zip(layers, clocks, strict=True):
        with about(f"layer {layer.name!r} ({layer.op_type})"):
            priced = cost(layer, profile, work.homes, clock)
        found.append(LayerCost(layer.name, layer.op_type, *priced))
    return found


def _shared(
    latency: Latency, clocks: Sequence[Clock | None], priced: Callable[[], Sequence[LayerCost]]
) -> Sequence[Clock | None]:
    """Return the part that each layer has in the measured time, by the times that were known or modelled."""
    known = [clock.seconds for clock in clocks if clock is not None]
    seconds = known if len(known) == len(clocks) else [each.cost.seconds for each in priced()]
    apart = latency.log_sd * standard(f"latency {latency.median} {latency.ratio}")
    whole = latency.median * np.concatenate([[1.0], np.exp(apart)])
    return [Clock(whole * each / sum(seconds), measured=True) for each in seconds]


@dataclass(frozen=True)
class Workload:
    """A model as a piece of hardware sees it."""

    layers: tuple[LayerWork, ...]
    homes: Homes
    uncosted: Mapping[str, float]
    """As in `Estimate`; so are `on_host`, `loops` and `runs_as`."""
    on_host: Mapping[str, float]
    loops: Mapping[str, LoopScore]
    runs_as: Mapping[str, str]


def read_workload(
    model: Estimable,
    profile: Profile,
    *,
    shapes: Mapping[str, Sequence[int] | int] | None = None,
    zeros: Mapping[str, float] | None = None,
    rounds: Mapping[str, int] | None = None,
) -> Workload:
    """Return a model's layers as they are deployed and fused, and where their tensors live.

    Arguments and errors are those of `estimate`.
    """
    graph = open_graph(model)
    given = spread(graph, zeros or {})
    if rounds is None:
        rounds = loops.on_data(graph, getattr(model, "calibration", None), shapes)
    if profile.executes == "onnxruntime":
        graph = as_run(graph)
    found = lay_out(graph, shapes, rounds)
    reader = WorkloadReader(
        graph,
        found,
        logical=profile.executes == "logical",
        zeros=given,
        weight_zeros=profile.reads_weight_zeros,
    )
    layers = reader.layers()
    outside = {layer.op_type for layer in layers if facts.named(layer.op_type).cost in profile.host}
    outputs = frozenset(reader.operand(value).name for value in graph.graph.outputs)
    deployment = Deployment(profile)
    deployed = deployment.of([layer for layer in layers if layer.op_type not in outside])
    fused = fuse(deployed, profile.fuses, outputs)
    check_room(fused, profile, outputs)
    divided, places = in_parts(fused, profile, outputs, samples(graph.graph, found.known))
    return Workload(
        divided,
        places,
        _shares(layers, reader.uncosted() - outside),
        _shares(layers, outside),
        loops.scores(found.rounds),
        deployment.runs_as,
    )


def _shares(layers: Sequence[LayerWork], op_types: Iterable[str]) -> dict[str, float]:
    """Return the share of all bytes that layers of these types read and write."""
    every = sum(layer.bytes for layer in layers) or 1.0
    found = {layer.op_type for layer in layers}
    return {
        op_type: sum(layer.bytes for layer in layers if layer.op_type == op_type) / every
        for op_type in sorted(found.intersection(op_types))
    }


def open_graph(model: Estimable) -> ir.Model:
    """Return the graph with constants lifted and local functions inlined; the argument stays as it was."""
    if isinstance(model, str | os.PathLike):
        graph = source.open_onnx(Path(model))
    elif isinstance(model, ir.Model):
        graph = model
    elif isinstance(inner := getattr(model, "ir", None), ir.Model):
        graph = inner
    else:
        graph = source.read_proto(cast("onnx.ModelProto", model))
    if not graph.functions and not any(node.op_type == "Constant" for node in graph.graph.all_nodes()):
        return graph
    graph = graph.clone() if graph is model or graph is getattr(model, "ir", None) else graph
    graph = common.InlinePass()(graph).model
    lift_constants(graph)
    return graph
