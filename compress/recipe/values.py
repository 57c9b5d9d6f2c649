"""What a recipe says, as frozen values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    field_validator,
    model_validator,
)

from compress.errors import did_you_mean
from compress.passes.base import Pass
from compress.recipe.budget import Budget
from compress.recipe.wanted import Search
from compress.results import METRICS

DEFAULT_HARDWARE = ("eyeriss-v1", "cpu", "tpu-v4i")
"""Profiles that score a model when none are named."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataFunctions(_Frozen):
    """Functions that yield batches, as ``file.py:function``."""

    calibration: str | None = None
    """Batches that passes may read."""
    evaluation: str | None = None
    """Batches that only scores read."""
    batch_axis: Literal["auto"] | NonNegativeInt | dict[str, NonNegativeInt | None] | None = "auto"
    """The axis of the inputs along which the samples of a batch lie: one number for all inputs, or by input
    name, {x: 1, lengths: 0}; null where there is no batch. auto takes it from names and sizes and tries it
    on the model; without certainty nothing is cut, and the first batch is timed and estimated as it is."""

    @field_validator("batch_axis", mode="before")
    @classmethod
    def _axes(cls, value: Any) -> Any:
        numbers = value.values() if isinstance(value, dict) else () if value == "auto" else (value,)
        for axis in numbers:
            if axis is not None and (type(axis) is not int or axis < 0):
                raise ValueError("should be an axis (0, 1, ...), axes by input name, null or auto")
        return value


class MetricChoice(_Frozen):
    """What is measured on the evaluation batches."""

    name: str
    """accuracy, top5, cosine, mse, mae, perplexity, or ``file.py:function``."""
    better: Literal["higher", "lower"] = "higher"
    """Whether higher or lower values are better; left out for metrics that are known by name."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METRICS and ".py:" not in name:
            raise ValueError(f"unknown metric {name!r}{did_you_mean(name, METRICS)}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _better(cls, value: Any) -> Any:
        named = isinstance(value, dict) and METRICS.get(str(value.get("name")))
        return {"better": named, **value} if named else value


def _calibrates_and_evaluates(value: Any) -> Any:
    return {"calibration": value, "evaluation": value} if isinstance(value, str) else value


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class GridCarbon(_Frozen):
    """The grid that this machine runs on."""

    grams_per_kwh: float = Field(ge=0, allow_inf_nan=False)
    """Grams of CO2 equivalent of a kilowatt hour."""


class Settings(_Frozen):
    """What a recipe says beside its variants."""

    version: Literal[1]
    """Version of the recipe format: 1."""
    model: str
    """An .onnx or .pt2 file, a Hugging Face folder, ``file.py:function``, or ``package:NAME/inner/path``
    for a file or folder inside an installed package. Paths are relative to the recipe."""
    data: Annotated[
        DataFunctions | None,
        BeforeValidator(_calibrates_and_evaluates, json_schema_input_type=str | DataFunctions | None),
    ] = None
    """``file.py:function`` that yields batches, or {calibration: ..., evaluation: ...}, two of them;
    {batch_axis: 1} beside them says which axis of the inputs is the batch."""
    metric: Annotated[
        MetricChoice | None,
        BeforeValidator(_by_name, json_schema_input_type=str | MetricChoice | None),
    ] = None
    """accuracy, top5, cosine, mse, mae, perplexity, ``file.py:function``, or {name: ..., better: lower}."""
    hardware: tuple[str, ...] = DEFAULT_HARDWARE
    """Profiles to score on: ids, or paths of .yaml files; empty for none."""
    budget: Budget | None = None
    """Limits on every variant that has passes and no budget of its own."""
    search: Search | None = None
    """Variants to be found: {minimise: energy, limits: {drop: 1%}}. They run behind those that are named."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of everything random."""
    threads: int = Field(default=0, ge=0)
    """Threads of one operator; 0 leaves the choice to ONNX Runtime."""
    providers: tuple[str, ...] = Field(default=("CPUExecutionProvider",), min_length=1)
    """Execution providers of ONNX Runtime, most wanted first."""
    latency: int = Field(default=20, ge=0)
    """Timed runs of each variant, in turn with the original; 0 measures no latency."""
    pack: bool = False
    """Also write every variant as one packed file, model.packed, and tell its size: see ``compress pack``."""
    carbon: GridCarbon | None = None
    """The grid that this machine runs on, {grams_per_kwh: 250}: the run then tells its grams of CO2
    equivalent; without it none are told."""
    shapes: dict[str, tuple[PositiveInt, ...]] = {}
    """Sizes by input name, for estimates: {x: [1, 3, 224, 224]}; left out where the model states them."""


class Variant(_Frozen):
    """One way to compress the model."""

    name: str
    """Also the name of its folder."""
    passes: tuple[Annotated[InstanceOf[Pass], PlainSerializer(str)], ...]
    """What is done, in order; nothing for the original."""
    budget: Budget | None = None
    """Limits: its own, or none if it says null; else the recipe's, if it has passes."""


class Recipe(Settings):
    """A recipe as it will be run."""

    path: Path
    """Where it was read."""
    title: str = ""
    """Its first line, if that is a comment."""
    variants: tuple[Variant, ...]
    """In the order of the file; none where all are searched for."""

    @property
    def home(self) -> Path:
        """The folder of the recipe: references are relative to it, and code inside of it is trusted."""
        return self.path.parent
