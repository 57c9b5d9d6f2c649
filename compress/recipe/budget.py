"""Limits on the cost of a variant, and whether it keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_serializer, field_validator

from compress.units import si

if TYPE_CHECKING:
    from compress.results import VariantResult

ENERGY = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9}
"""Units of energy, in joules."""
SIZE = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
"""Units of size, in bytes."""
TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
"""Units of time, in seconds."""
COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
"""Units of numbers of operations."""
POINTS = {"": 1.0}
"""A metric has no unit."""
UNITS = {"energy": ENERGY, "dram": SIZE, "file": SIZE, "weights": SIZE, "latency": TIME, "drop": POINTS}
"""The units of every quantity that a budget may limit."""
ROUNDING = 1e-9
"""Relative slack: 0.9 - 0.88 is a little more than 0.02 in floating point, and yet keeps that limit."""

_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)\s*([^0-9\s]*)")


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest value that is allowed: absolute, or per cent of the original's."""

    value: float
    """The number as written."""
    unit: str
    """The unit as written: ``mJ``, ``kB``, ``%``; empty for points of a metric."""

    @property
    def relative(self) -> bool:
        """Whether the limit is a share of the original's value."""
        return self.unit == "%"

    def allowed(self, original: float) -> float:
        """Return the largest allowed value in joules, bytes, seconds or points.

        Args:
            original: the original's value, in the same unit; only a relative limit looks at it.
        """
        scales = ENERGY | SIZE | TIME | COUNT
        return abs(original) * self.value / 100 if self.relative else self.value * scales[self.unit]

    def __str__(self) -> str:
        return f"{self.value:.15g}{'' if self.relative else ' '}{self.unit}".strip()


def parse(written: object, quantity: str, units: Mapping[str, float]) -> Limit:
    """Read a limit such as ``1.5 mJ`` or ``50%``.

    Args:
        written: the limit as a recipe writes it; points of a metric may be a plain number.
        quantity: what it limits.
        units: its units.

    Raises:
        ValueError: `written` is not a number, or its unit is missing or not one of `quantity`.
    """
    choices = f"one of {', '.join(units)}, %" if "" not in units else "% or no unit"
    match = _WRITTEN.fullmatch(f"{written}".strip())
    if match is None or isinstance(written, bool):
        raise ValueError(f"{written!r} is not a limit; write a number with {choices}")
    value, unit = float(match[1]), match[2]
    if unit != "%" and unit not in units:
        if not unit:
            raise ValueError(f"{match[1]} has no unit; write {match[1]} with {choices}")
        alike = [known for known in units if known.lower() == unit.lower()]
        advice = f"did you mean {alike[0]!r}?" if alike else f"write {choices}"
        raise ValueError(f"{unit!r} is not a unit of {quantity}; {advice}")
    if value == 0 and quantity != "drop":
        raise ValueError("no variant can keep a limit of 0")
    return Limit(value, unit)


def written_as(units: Mapping[str, float]) -> dict[str, Any]:
    """Return the JSON Schema of a limit in some units."""
    optional = "?" if "" in units else ""
    choices = "|".join([*filter(None, units), "%"])
    pattern = rf"^\s*[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*({choices}){optional}\s*$"
    text: dict[str, Any] = {"type": "string", "pattern": pattern}
    return {"anyOf": [text, {"type": "number", "minimum": 0}]} if optional else text


class Budget(BaseModel):
    """Limits on one variant; the command ends with exit code 3 when one is missed.

    A limit is a number with its unit, or per cent of the original's value: ``energy: 50%``,
    ``file: 300 kB``, ``latency: 2 ms``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    energy: Limit | None = Field(default=None, json_schema_extra=written_as(UNITS["energy"]))
    """Estimated energy of one inference: J, mJ, uJ, nJ, or per cent."""
    dram: Limit | None = Field(default=None, json_schema_extra=written_as(UNITS["dram"]))
    """Estimated bytes moved to and from DRAM by one inference: B, kB, MB, KiB, ..., or per cent."""
    file: Limit | None = Field(default=None, json_schema_extra=written_as(UNITS["file"]))
    """Size of the ONNX file with its external data: B, kB, MB, KiB, ..., or per cent."""
    weights: Limit | None = Field(default=None, json_schema_extra=written_as(UNITS["weights"]))
    """Size of the weights as stored: B, kB, MB, KiB, ..., or per cent."""
    latency: Limit | None = Field(default=None, json_schema_extra=written_as(UNITS["latency"]))
    """Median time of one run in ONNX Runtime on this machine: s, ms, us, or per cent."""
    drop: Limit | None = Field(default=None, json_schema_extra=written_as(UNITS["drop"]))
    """How much worse the metric may be: points, or per cent of the original's value."""
    hardware: str | None = None
    """The profile that energy and dram are limits on; the recipe's first if left out."""

    @field_validator(*UNITS, mode="plain")
    @classmethod
    def _parse(cls, value: object, info: ValidationInfo) -> Limit | None:
        if value is None or isinstance(value, Limit):
            return value
        return parse(value, info.field_name or "", UNITS[info.field_name or ""])

    @field_serializer(*UNITS)
    def _write(self, value: Limit | None) -> str | None:
        return None if value is None else str(value)

    @property
    def limits(self) -> dict[str, Limit]:
        """The limits that are stated, by quantity."""
        return {name: getattr(self, name) for name in UNITS if getattr(self, name) is not None}

    def missed(self, variant: VariantResult, original: VariantResult) -> list[str]:
        """Say in words which limits `variant` does not keep; none when it keeps them all.

        A stated limit on something that was not measured counts as missed.
        """
        hardware = self.hardware or next(iter(variant.hardware), "")
        complaints = []
        for quantity, limit in self.limits.items():
            value, reference = _measured(quantity, hardware, variant, original)
            if value is None or (reference is None and limit.relative):
                why = _refusal(quantity, hardware, variant, original) or "was not measured"
                complaints.append(f"{quantity} {why}, so its limit of {limit} counts as missed")
            elif not value <= limit.allowed(reference or 0.0) * (1 + ROUNDING):
                share = f" of the original's {_shown(reference or 0.0, quantity)}" if limit.relative else ""
                where = f" on {hardware}" if quantity in ("energy", "dram") else ""
                shown = _shown(value, quantity)
                complaints.append(f"{quantity} of {shown}{where} is over the limit of {limit}{share}")
        return complaints


def _measured(
    quantity: str, hardware: str, variant: VariantResult, original: VariantResult
) -> tuple[float | None, float | None]:
    """Return the variant's value and the original's, in joules, bytes, seconds or points."""
    if quantity in ("energy", "dram"):
        field = "energy_joules" if quantity == "energy" else "dram_bytes"
        scores = variant.hardware.get(hardware), original.hardware.get(hardware)
        return getattr(scores[0], field, None), getattr(scores[1], field, None)
    if quantity in ("file", "weights"):
        field = "file_bytes" if quantity == "file" else "weight_bytes"
        return getattr(variant, field), getattr(original, field)
    if quantity == "latency":
        timed = variant.latency_seconds
        # The original as it was timed in turn with this variant, not in a quieter minute.
        return (timed.median, timed.median / timed.ratio) if timed else (None, None)
    metric, reference = variant.metric, original.metric
    if metric is None or reference is None:
        return None, None
    return metric.delta if metric.better == "lower" else -metric.delta, reference.value


def _refusal(quantity: str, hardware: str, variant: VariantResult, original: VariantResult) -> str:
    """Say that one of two variants does not run on the hardware of a limit, if that is so."""
    for whose, each in (("it", variant), ("the original", original)):
        if quantity in ("energy", "dram") and hardware in each.refused:
            return f"is unknown: {whose} {each.refused[hardware]}"
    return ""


def _shown(value: float, quantity: str) -> str:
    base_unit = next(iter(UNITS[quantity]))
    return si(value, base_unit) if base_unit else f"{value:.4g}"
