"""What a hardware profile states: memories, arithmetic units and their numbers, each with its source."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from compress.errors import HardwareError, did_you_mean
from compress.estimator.mapping import DATAFLOWS, Dataflow, Kernel
from compress.estimator.uncertainty import MODEL_LOG_SD, factors

Tag: TypeAlias = Literal["published", "computed", "recalled", "assumed", "detected"]
UNCERTAINTY: dict[Tag, tuple[float, float]] = {
    "published": (0.9, 1.1),
    "computed": (0.8, 1.25),
    "detected": (0.9, 1.1),
    "recalled": (0.6, 1.6),
    "assumed": (0.4, 2.5),
}
"""Low and high end as factors of the value, for numbers that state no ends of their own: nine of ten such
numbers should lie between. This is a policy of the project, not a measurement: it keeps guesses from looking
as certain as readings."""
Family: TypeAlias = Literal["elementwise", "normalization", "pool", "softmax", "layout", "attention"]
Format: TypeAlias = Literal["dense", "run-length", "bitmap", "two-of-four", "compressed-columns"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Quantity(_Frozen):
    """One number of a profile, with where it comes from; its unit is in the name of its field."""

    value: float = Field(ge=0)
    tag: Tag
    """How the number is known: published in the source, computed or fitted from it, recalled from memory,
    assumed, or detected on this machine."""
    scope: str
    """What the number covers: device, chip, path (device and wires) or board."""
    source: str
    """Key of the profile's `sources`."""
    low: float | None = Field(default=None, gt=0)
    """Low end of the value's 90 % interval; from the tag if not given."""
    high: float | None = None
    """High end of that interval; from the tag if not given."""

    _path: str = PrivateAttr("")
    """Where the number stands in its profile; numbers of one place are drawn alike."""

    @model_validator(mode="after")
    def _check(self) -> Quantity:
        if not (self.low or 0.0) <= self.value <= (math.inf if self.high is None else self.high):
            raise ValueError(f"the value {self.value} does not lie between its low and high ends")
        return self

    def times(self, factor: float) -> Quantity:
        """Return the number multiplied, its ends with it."""
        ends = {end: getattr(self, end) for end in ("value", "low", "high")}
        scaled = {end: value * factor for end, value in ends.items() if value is not None}
        return self.model_copy(update=scaled)

    @property
    def draws(self) -> np.ndarray:
        """The value, and then a few hundred that it may have, the same ones whoever asks."""
        return self.value * factors(self._path, self.low_factor, self.high_factor)

    @property
    def low_factor(self) -> float:
        """Low end over value."""
        return UNCERTAINTY[self.tag][0] if self.low is None or not self.value else self.low / self.value

    @property
    def high_factor(self) -> float:
        """High end over value."""
        return UNCERTAINTY[self.tag][1] if self.high is None or not self.value else self.high / self.value


@dataclass(frozen=True, slots=True)
class Number:
    """A type that arithmetic is done in."""

    kind: Literal["int", "float"]
    bits: int

    def __str__(self) -> str:
        return f"{self.kind}{self.bits}"


class Arithmetic(_Frozen):
    """Multiply-accumulate units of one number type."""

    macs_per_second: Quantity
    """Rate with every unit busy."""
    pj_per_mac: Quantity
    pj_per_gated_mac: Quantity | None = None
    """Energy when an operand is zero and the unit is gated; used with ``zeros: gate``."""


class Vector(_Frozen):
    """Everything that is not a multiply-accumulate: activations, normalization, decoding of weights."""

    ops_per_second: Quantity
    pj_per_op: Quantity


class Array(_Frozen):
    """A rectangle of multiply-accumulate units, and what its rows and columns stand for.

    ``row-stationary``: kernel rows by output rows (Eyeriss, JSSC 2017, section IV);
    ``weight-stationary``: input channels and kernel by output channels (TPU, ISCA 2017).
    """

    rows: Quantity
    columns: Quantity
    mapping: Literal["row-stationary", "weight-stationary"]
    bytes_per_second: Quantity | None = None
    """Bandwidth of partial sums to and from the memory that feeds the array; None means that it never limits.
    It hides behind arithmetic, or arithmetic behind it."""
    input_bytes: Quantity | None = None
    """Room for the input rows of a pass. The array sums the channels that fit; partial sums wait outside."""


class DirectConvolution(_Frozen):
    """A convolution kernel that takes whole maps, blocks of channels at a time."""

    outputs: Quantity
    """Output channels computed together."""
    inputs: Quantity
    """Input channels added to them in one go."""


class Memory(_Frozen):
    """One level of memory."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    capacity_bytes: Quantity | None = None
    """Room for tiles, or for the weights in the outermost level; only there may it be None, no limit."""
    pj_per_bit: Quantity | None = None
    """Energy of a read or write; None where another number of the profile includes it."""
    bytes_per_second: Quantity | None = None
    """Bandwidth towards the compute units; None means that it never limits."""
    keeps: frozenset[Literal["weights", "activations"]] = frozenset()
    """What stays here from one layer, or one inference, to the next, if it fits."""
    activation_format: Format = "dense"
    """How activations are stored here."""
    weight_format: Format = "dense"
    """How weights are stored here."""
    read_only: bool = False
    """Holds nothing but weights while a model runs, as flash does: results must fit further in."""
    off_chip: bool = False
    """Outside the chip: its traffic counts as DRAM bytes, and the chip's voltage does not change it."""
    clocked: bool = False
    """Outside the chip, but its bandwidth scales with the chip's clock."""


class OperatingPoint(_Frozen):
    """A voltage and the clock that goes with it."""

    name: str
    volts: Quantity
    hertz: Quantity


class Events(_Frozen):
    """A chip that computes on spikes: a multiply-accumulate happens when its input fires."""

    time_steps: Quantity
    """Steps that one inference takes."""
    activity: Quantity
    """Fraction of the inputs that fire in a step, where zeros are not given."""
    step_seconds: Quantity | None = None
    """Time of one step, however little fires: cores wait for one another, and for the host."""


class Link(_Frozen):
    """A connection to the next device of the same kind."""

    bytes_per_second: Quantity
    pj_per_bit: Quantity


class Profile(_Frozen):
    """One piece of hardware, at one operating point."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    scope: str
    """What the joules cover and what they leave out."""
    sources: dict[str, str]
    executes: Literal["logical", "onnxruntime"] = "logical"
    """Which graph is scored: the logical one, Q/DQ read as integer arithmetic, or the one that ONNX
    Runtime makes of it on this machine."""
    kernels: Literal["this-machine"] | None = None
    """Where the time of a layer comes from: the runtime's kernels as they were timed on this machine, or on
    one alike, or the rates below, which also count where no times are known."""
    overlap: bool = True
    """Whether memory transfers hide behind arithmetic (seconds are the largest, not the sum)."""
    zeros: Literal["ignore", "gate", "skip"] = "ignore"
    """What a zero operand saves: nothing, the energy of its MAC, or also its time."""
    zero_operands: frozenset[Literal["weights", "activations"]] = frozenset(("activations",))
    """Which operands' zeros count."""
    halves_two_of_four: bool = False
    """Weights with two zeros in every four along the reduction take half the MACs."""
    fuses: frozenset[Family] = frozenset()
    """Operators that run on their producer's result before it is written. ``attention`` keeps the scores
    between two products of activations on the chip."""
    host: frozenset[Family] = frozenset()
    """Operators that run on the host: they are not part of the cost, and their results come from outside."""
    dataflows: tuple[Dataflow, ...] = DATAFLOWS
    streams_weights: bool = False
    """Weights bypass the first buffer."""
    decode_at: str | None = None
    """The innermost place that holds the weights of a packed file coded: dram, glb, rf or a memory, as in
    `compress.estimator.coded.Coded`. None if software decodes them when it loads the model."""
    moves_padding: bool = False
    """Padding is fetched like data."""
    whole_rows: bool = False
    """Feature maps are cut into strips of whole rows."""
    direct_convolution: DirectConvolution | None = None
    """The kernel of float convolutions; None tiles them like every other loop nest."""
    arithmetic: dict[str, Arithmetic] = Field(min_length=1)
    """Units by number type: int8, fp16 and so on. What is in none of these types is converted as it is
    deployed, or does not run; see `runs_in`."""
    floats_as: str | None = None
    """The type of `arithmetic` that floats are deployed in; None leaves the choice to `runs_in`."""
    decodes: frozenset[str] = frozenset()
    """Types of weights, such as int4, that are decoded on their way to wider units. Other codes are stored in
    the next wider of these, or as wide as the units: a toolchain decodes them as it loads the model."""
    efficiency: Quantity | None = None
    """Fraction of the peak rate that a layer reaches when it fills the array."""
    kernel_efficiency: dict[Kernel, Quantity] = {}
    """Fraction of the peak rate that a processor's kernel reaches, by the kind of layer it is for; 1 if not
    given. ``dense`` multiplies one row, so that every weight is loaded for one use."""
    vector: Vector
    array: Array | None = None
    memories: tuple[Memory, ...] = Field(min_length=2)
    """Outermost first. The last one feeds the units; its reads are part of pj_per_mac."""
    start_seconds: Quantity | None = None
    """Time to start a layer, before anything is read or computed."""
    request_seconds: Quantity | None = None
    """Time that a serving engine spends on one request of a batch between two tokens, sampling included."""
    attention_efficiency: Quantity | None = None
    """Fraction of the outermost memory's rate, and of its bytes a joule, that attention over cached keys and
    values reaches; 1 if not given."""
    supply_efficiency: Quantity | None = None
    """Fraction of the board's power that reaches the chip, where the other numbers are the chip's own: about
    0.85 behind a switching regulator; core voltage over supply voltage behind a linear one."""
    clock_watts: Quantity | None = None
    """Power drawn whenever the chip is clocked, whatever it does."""
    leakage_watts: Quantity | None = None
    """Power drawn whenever the chip is on."""
    package_watts: Quantity | None = None
    """Power of a processor's package while it computes, arithmetic and caches included. Where the time of a
    layer is that of timed kernels, or was measured, this power over it and the traffic of the memories
    outside the chip are the energy."""
    idle_watts: Quantity | None = None
    """Power drawn between inferences."""
    operating_points: tuple[OperatingPoint, ...] = ()
    """Voltages and clocks; every other number of the profile is stated at the first one."""
    events: Events | None = None
    link: Link | None = None
    model_error: Quantity | None = None
    """Standard deviation of the logarithm of estimated over true energy from network to network, were the
    numbers of the profile right; `compress.estimator.uncertainty.MODEL_LOG_SD` if not known."""

    @model_validator(mode="after")
    def _check(self) -> Profile:
        for path, quantity in self.quantities():
            if quantity.source not in self.sources:
                raise ValueError(f"{path}: no source {quantity.source!r} in sources")
            quantity._path = path
        for name in (*self.arithmetic, *self.decodes):
            parse_number(name)
        if self.floats_as not in (None, *self.arithmetic):
            raise ValueError(f"floats_as: arithmetic has no {self.floats_as!r}")
        for memory in self.memories[1:]:
            if memory.capacity_bytes is None:
                raise ValueError(f"memory {memory.name!r}: capacity_bytes is missing")
        places = ("dram", "glb", "rf", *(memory.name for memory in self.memories))
        if self.decode_at not in (None, *places):
            raise ValueError(f"decode_at: there is no place {self.decode_at!r}")
        return self

    def __repr__(self) -> str:
        return f"Profile({self.id!r}: {self.title}; {', '.join(self.arithmetic)})"

    __str__ = __repr__

    @property
    def reads_weight_zeros(self) -> bool:
        """Whether zeros in weights change anything, so that they must be counted."""
        counted = self.zeros != "ignore" and "weights" in self.zero_operands
        formats = any(memory.weight_format != "dense" for memory in self.memories)
        return counted or formats or self.halves_two_of_four

    @property
    def reads_activation_zeros(self) -> bool:
        """Whether zeros in activations change anything, so that they are worth counting on data."""
        counted = self.zeros != "ignore" and "activations" in self.zero_operands
        return counted or any(memory.activation_format != "dense" for memory in self.memories)

    @property
    def log_sd(self) -> float:
        """Standard deviation of the logarithm of the model's error."""
        return MODEL_LOG_SD if self.model_error is None else self.model_error.value

    def level(self, name: str) -> int:
        """Return the index of the memory called `name`.

        Raises:
            HardwareError: the profile has no such memory.
        """
        names = [memory.name for memory in self.memories]
        if name not in names:
            raise HardwareError(f"{self.id} has no memory {name!r}{did_you_mean(name, names)}")
        return names.index(name)

    def at(self, name: str) -> Profile:
        """Return the profile at another of its operating points.

        Energy per operation scales with the square of the voltage, rates with the clock, clock power
        with both, and leakage with the voltage: ``E = a V^2 + L V t``. Numbers of what is outside the
        chip stay.

        Raises:
            HardwareError: the profile has no such point.
        """
        points = {point.name: point for point in self.operating_points}
        if name not in points:
            raise HardwareError(f"{self.id} has no operating point {name!r}{did_you_mean(name, points)}")
        base, point = self.operating_points[0], points[name]
        volts, clock = point.volts.value / base.volts.value, point.hertz.value / base.hertz.value
        factors = {
            "pj_per_mac": volts**2,
            "pj_per_gated_mac": volts**2,
            "pj_per_op": volts**2,
            "pj_per_bit": volts**2,
            "macs_per_second": clock,
            "ops_per_second": clock,
            "bytes_per_second": clock,
            "clock_watts": volts**2 * clock,
            "leakage_watts": volts,
            "idle_watts": volts,
        }
        moved = (point, *(other for other in self.operating_points if other is not point))
        profile: Profile = scaled(self, factors)
        return profile.model_copy(update={"operating_points": moved})

    def quantities(self) -> list[tuple[str, Quantity]]:
        """Return every number with its path, such as ``memories.dram.pj_per_bit``."""
        return list(_quantities(self, ""))

    def runs_in(self, number: Number) -> str | None:
        """Return the type of `arithmetic` that a number is multiplied in here; None if there is none.

        It is the narrowest of its kind that holds it. An integer that is too wide for all integers runs in
        floats. A float that is too wide for all of them runs in the widest, to which toolchains round it.
        """
        if number.kind == "float" and self.floats_as is not None:
            return self.floats_as
        known = {name: parse_number(name) for name in self.arithmetic}
        for kind in (number.kind, "float"):
            wide = [name for name, each in known.items() if each.kind == kind and each.bits >= number.bits]
            if wide:
                return min(wide, key=lambda name: known[name].bits)
        floats = [name for name, each in known.items() if each.kind == "float"]
        return max(floats, key=lambda name: known[name].bits, default=None)


def scaled(part: Any, factors: Mapping[str, float], everywhere: bool = False) -> Any:
    """Return a copy of a profile with its quantities multiplied by the factor of their field's name.

    Links and memories outside the chip stay as they are, unless `everywhere`.
    """
    if isinstance(part, tuple):
        return tuple(scaled(item, factors, everywhere) for item in part)
    if isinstance(part, dict):
        return {key: scaled(item, factors, everywhere) for key, item in part.items()}
    if not isinstance(part, BaseModel):
        return part
    if not everywhere and (isinstance(part, Link) or getattr(part, "off_chip", False)):
        paced = getattr(part, "clocked", False)
        factors = {"bytes_per_second": factors.get("bytes_per_second", 1.0)} if paced else {}
    changed: dict[str, Any] = {}
    for name in type(part).model_fields:
        item = getattr(part, name)
        if not isinstance(item, Quantity):
            changed[name] = scaled(item, factors, everywhere)
        elif name in factors:
            changed[name] = item.times(factors[name])
    return part.model_copy(update=changed)


def parse_number(name: str) -> Number:
    """Return the number type called ``int8``, ``fp16``, ``bf16`` and so on.

    Raises:
        ValueError: `name` is not a number type.
    """
    match = re.fullmatch(r"(int|fp|bf)(\d+)", name)
    if match is None:
        raise ValueError(f"{name!r} is not a number type such as int8, fp16 or bf16")
    return Number(kind="int" if match[1] == "int" else "float", bits=int(match[2]))


def _quantities(part: Any, path: str) -> list[tuple[str, Quantity]]:
    if isinstance(part, Quantity):
        return [(path, part)]
    if isinstance(part, BaseModel):
        items = [(name, getattr(part, name)) for name in type(part).model_fields]
    elif isinstance(part, dict):
        items = list(part.items())
    elif isinstance(part, tuple):
        items = [(getattr(item, "name", str(i)), item) for i, item in enumerate(part)]
    else:
        return []
    return [
        found for name, item in items for found in _quantities(item, f"{path}.{name}" if path else str(name))
    ]
