"""What a search is asked for: what is to be small, and what limits are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_serializer, field_validator

from compress.passes.base import get
from compress.recipe.budget import COUNT, ENERGY, POINTS, SIZE, TIME, Limit, parse, written_as

Quantity: TypeAlias = Literal["energy", "seconds", "dram_bytes", "flash", "file", "macs"]
"""What a search can minimise."""
Choice: TypeAlias = Literal["bits", "channels"]
"""What it can decide about."""
LIMITED = {
    "drop": POINTS,
    "energy": ENERGY,
    "seconds": TIME,
    "dram_bytes": SIZE,
    "flash": SIZE,
    "ram": SIZE,
    "file": SIZE,
    "macs": COUNT,
}
"""The units of every quantity that a search may limit."""


class Limits(BaseModel):
    """What every variant of a search keeps: numbers with units, or per cent of the original's value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    drop: Limit | None = Field(default=None, json_schema_extra=written_as(POINTS))
    """How much worse the metric may be: points, or per cent of the original's value, on labels of batches
    that are held out of calibration."""
    min_snr: float | None = Field(default=None, gt=0)
    """Decibels of signal over noise that the outputs keep, where there are no labels."""
    energy: Limit | None = Field(default=None, json_schema_extra=written_as(ENERGY))
    """Energy of one inference on the hardware: J, mJ, uJ, nJ, or per cent."""
    seconds: Limit | None = Field(default=None, json_schema_extra=written_as(TIME))
    """Time of one inference there: s, ms, us, or per cent."""
    dram_bytes: Limit | None = Field(default=None, json_schema_extra=written_as(SIZE))
    """Bytes that one inference moves to and from DRAM there: B, kB, MB, KiB, ..., or per cent."""
    flash: Limit | None = Field(default=None, json_schema_extra=written_as(SIZE))
    """Bytes of the weights as they are deployed there."""
    ram: Limit | None = Field(default=None, json_schema_extra=written_as(SIZE))
    """Most bytes of inputs and results that are alive at a time there."""
    file: Limit | None = Field(default=None, json_schema_extra=written_as(SIZE))
    """Bytes of the weights in the ONNX file."""
    macs: Limit | None = Field(default=None, json_schema_extra=written_as(COUNT))
    """Multiply-accumulates of one inference: a number, with k, M or G, or per cent."""

    @field_validator(*LIMITED, mode="plain")
    @classmethod
    def _parse(cls, value: object, info: ValidationInfo) -> Limit | None:
        if value is None or isinstance(value, Limit):
            return value
        return parse(value, info.field_name or "", LIMITED[info.field_name or ""])

    @field_serializer(*LIMITED)
    def _write(self, value: Limit | None) -> str | None:
        return None if value is None else str(value)

    @property
    def stated(self) -> dict[str, Limit]:
        """The limits on costs that are stated, by quantity."""
        every = {name: getattr(self, name) for name in LIMITED if name != "drop"}
        return {name: limit for name, limit in every.items() if limit is not None}

    def most(self, original: Mapping[str, float]) -> dict[str, float]:
        """Return the largest allowed costs in joules, seconds and bytes.

        Args:
            original: the original's values, which relative limits are shares of.
        """
        return {name: limit.allowed(original[name]) for name, limit in self.stated.items()}


class Search(BaseModel):
    """A search for the best variants under limits; they run behind the variants that are written down."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    minimise: Quantity = "energy"
    """What is to be small: energy, seconds or dram_bytes of one inference on the hardware, flash (bytes of
    weights as deployed there), file (bytes of weights as stored), or macs."""
    hardware: str | None = None
    """The profile that prices it; the recipe's first if left out."""
    limits: Limits = Limits()
    """What every variant keeps: {drop: 1%, flash: 400 kB}, or {min_snr: 25} where there are no labels."""
    choices: tuple[Choice, ...] = Field(default=("bits", "channels"), min_length=1)
    """What may differ between layers: bits of weights and activations, channels of coupling groups. What
    saves nothing on the hardware is left as it is."""
    evaluations: int = Field(default=24, ge=1)
    """Variants that may be made and measured on the way."""
    sampler: str = Field(default="milp", pattern=r"^(milp|nsga2|tpe|random|qubo|[\w.]+:\w+)$")
    """Who chooses what is measured: milp, a mixed-integer program over the predictions; nsga2, tpe or random,
    Optuna's, without predictions; qubo, annealing of a binary quadratic model, compared with milp; or
    MODULE:CLASS, a dimod.Sampler that does the same, which needs --trust."""
    finetune: dict[str, Any] | None = None
    """Settings of the pass `finetune`, which then trains each variant of the frontier between pruning and
    quantization: {epochs: 2, distill: kl}. Variants are chosen as they are without it."""

    @field_validator("finetune")
    @classmethod
    def _trains(cls, settings: dict[str, Any] | None) -> dict[str, Any] | None:
        if settings is not None:
            get("finetune").model_validate(settings)
        return settings

    def steps(self, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the passes that make a variant, as a recipe writes them.

        Args:
            plan: settings of the pass ``per-layer``.
        """
        if self.finetune is None or "channels" not in plan:
            return [{"per-layer": dict(plan)}] if plan else []
        bits = {name: value for name, value in plan.items() if name != "channels"}
        quantized = [{"per-layer": bits}] if bits else []
        return [{"per-layer": {"channels": plan["channels"]}}, {"finetune": self.finetune}, *quantized]
