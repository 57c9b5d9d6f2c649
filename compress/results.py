"""What a run found out, as ``results.json`` holds it.

The file is strictly valid JSON: a number that is not finite stands as the string ``"Infinity"``,
``"-Infinity"`` or ``"NaN"``, and is read back as the number.
"""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compress import units
from compress.changes import Change
from compress.errors import InputError, first_problem

METRICS: Mapping[str, Literal["higher", "lower"]] = {
    "accuracy": "higher",
    "top5": "higher",
    "cosine": "higher",
    "mse": "lower",
    "mae": "lower",
    "perplexity": "lower",
}
"""Metrics that have a name, and which way each is better."""
MUCH_LEFT = 0.1
"""Share of the weight bytes that a variant may leave as they were without saying so."""
PROFILES_SHOWN = 3
"""How many hardware profiles the ``repr`` of a variant names."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=True,
        ser_json_inf_nan="strings",
    )

    def __str__(self) -> str:
        return repr(self)


class Metric(_Frozen):
    """The recipe's metric on the evaluation data."""

    name: str
    value: float
    delta: float
    """Value minus the original's value."""
    better: Literal["higher", "lower"] = "higher"
    others: dict[str, float] = {}
    """Further numbers that a metric function returned."""


class Agreement(_Frozen):
    """How close the outputs are to the original's, over the evaluation (else calibration) data."""

    snr_db: float | None = None
    """Signal-to-noise ratio, ``10 log10(|y|^2 / |y - y'|^2)``, of the worst float output; None where none has
    noise."""
    cosine: float | None = None
    """Mean cosine between the rows (last axis) of that output and the original's."""
    equal: float | None = None
    """Share of equal elements of the worst output of integers, booleans, strings, or floats that are all zero
    in the original; 1 where nothing differs in any output, None where only noise tells."""
    top1: float | None = None
    """Share of rows (last axis) whose largest number stands where the original's does, of the worst float
    output of two or three axes; with scores of classes, the share of predictions that stay the same."""
    notes: dict[str, str] = {}
    """What these numbers do not say of an output, such as one that is constant in the original."""
    not_comparable: dict[str, str] = {}
    """Outputs that are in none of these numbers, and why."""

    @property
    def is_identical(self) -> bool:
        """Whether nothing differs."""
        return self.snr_db is None and self.equal == 1 and not self.not_comparable

    @property
    def decibels(self) -> float | None:
        """One number for the worst output, to rank by; infinite where nothing differs, None if unknown.

        Labels count as one-hot vectors: one that differs is noise of power 2 over a signal of power 1.
        """
        if self.is_identical:
            return math.inf
        known = [] if self.snr_db is None else [self.snr_db]
        if self.equal is not None and self.equal < 1:
            known.append(10 * math.log10(0.5 / (1 - self.equal)))
        return min(known, default=None)

    @property
    def remarks(self) -> list[str]:
        """What the numbers do not say, a sentence for each output."""
        apart = {output: f"cannot be compared: {why}" for output, why in self.not_comparable.items()}
        return [f"output {output}: {said}" for output, said in {**self.notes, **apart}.items()]

    @property
    def figures(self) -> list[str]:
        """What was measured, in words, what ranks first of all."""
        if self.is_identical:
            return ["identical"]
        said = [] if self.snr_db is None else [units.decibels(self.snr_db)]
        said += [] if self.cosine is None else [f"cosine {units.cosine(self.cosine)}"]
        said += [] if self.equal is None else [f"{units.share(self.equal)} equal"]
        said += [] if self.top1 is None else [f"{units.share(self.top1)} top-1"]
        return said or ["not comparable"]


class Latency(_Frozen):
    """Seconds of one run in ONNX Runtime on this machine."""

    median: float
    """Of a variant in a run: the original's median times the ratio, so that no variant's time depends on what
    else the machine did as it was timed."""
    runs: int
    ratio: float
    """Median of variant over original, timed in turn; below 1 is faster."""
    log_sd: float = 0.0
    """Standard error of the logarithm of the ratio, from how much it differs between rounds."""

    def beside(self, original: Latency) -> Latency:
        """Return the time of a variant if the original takes as long as it did on its own."""
        return self.model_copy(update={"median": original.median * self.ratio})


class LayerScore(_Frozen):
    """One layer's share of a hardware score."""

    name: str
    op_type: str
    energy: dict[str, float]
    """Joules by component (compute, each memory level, static)."""
    dram_bytes: float
    macs: int
    seconds: float
    bound: str
    """What limits it: compute or the name of a memory level."""
    dram_weight_bytes: float = 0.0
    """The part of `dram_bytes` that is weights."""


class LoopScore(_Frozen):
    """How often the body of a loop counts in a score."""

    op_type: str
    bodies: int
    """Rounds, each time that the loop is reached."""
    why: str
    """How that number is known."""


SURE = 0.9
"""Probability from which one of two energies counts as less than the other; below it is a tie."""


class EnergyRatio(_Frozen):
    """The energy of one inference over that of another on the same hardware."""

    value: float
    low: float
    """Low end of the 90 % interval."""
    high: float
    less: float
    """Probability that the ratio is below 1."""

    @property
    def is_clear(self) -> bool:
        """Whether it is sure enough which of the two is less; if not, it is a tie."""
        return max(self.less, 1 - self.less) >= SURE

    def __repr__(self) -> str:
        return f"{units.ratio(self.value, 1.0)} {units.span(self.low, self.high)}"


class Making(_Frozen):
    """What a pass, a variant's passes or a run cost on the machine that runs compress, not on the target."""

    by: str
    """What the work was, such as the name of a pass."""
    seconds: float
    processor_seconds: float
    """Seconds of all cores together, of child processes too."""
    measured_joules: float | None = None
    """By a meter, less what the machine takes at rest; None where there is none."""
    meter: str
    """Name of the meter, or the reason why nothing was measured."""
    estimated_joules: float
    """The power of a core, of the profile `cpu`, over the seconds of all cores. GPUs are not in it."""
    estimated_low: float
    """Low end of the 90 % interval."""
    estimated_high: float

    @property
    def joules(self) -> float:
        """What was measured, or else the estimate."""
        return self.estimated_joules if self.measured_joules is None else self.measured_joules

    @property
    def how(self) -> Literal["measured", "estimated"]:
        """How `joules` is known."""
        return "estimated" if self.measured_joules is None else "measured"


class Payback(_Frozen):
    """After how many inferences on some hardware a variant has saved what it took to make it."""

    inferences: float | None
    """None where an inference saves nothing: never."""
    sure: bool
    """Whether it is at least 90 % sure that an inference saves anything, or that it does not."""
    making: Literal["measured", "estimated"]
    """How the joules of making are known; what an inference saves is estimated."""

    def __str__(self) -> str:
        """Say how many, or never, or that it is not sure."""
        if not self.sure:
            return "not sure"
        return "never" if self.inferences is None else units.si(max(self.inferences, 1.0), "").strip()


class Carbon(_Frozen):
    """Greenhouse gases of the electricity of making, at the intensity of the grid that the recipe states."""

    grams_per_kwh: float
    run_grams: float
    """Of this run."""
    making_grams: dict[str, float]
    """Of the passes of each variant."""


class HardwareScore(_Frozen):
    """Estimated cost of one inference on one hardware profile."""

    energy_joules: float
    """Joules at the numbers that the profile states."""
    energy_low: float
    """Low end of the 90 % interval."""
    energy_high: float
    energy_draws: list[float] = []
    """Joules in each of a few hundred draws of all that is uncertain; the same draws for every variant."""
    ratio: EnergyRatio | None = None
    """To the original, as it would be deployed there; None for itself and where it does not run."""
    payback: Payback | None = None
    """When a variant has saved there what it took to make; None where there is no ratio."""
    energy: dict[str, float]
    """Joules by component."""
    dram_bytes: float
    bytes_moved: dict[str, float]
    """Bytes by memory level."""
    macs: int
    seconds: float
    uncosted: dict[str, float] = {}
    """Operators whose arithmetic is unknown and not counted, with their share of all bytes."""
    on_host: dict[str, float] = {}
    """Operators that the hardware leaves to its host, with their share of all bytes."""
    loops: dict[str, LoopScore] = {}
    """How often the body of each Loop, Scan and SequenceMap counts, by its name."""
    runs_as: dict[str, str] = {}
    """What a toolchain converts as it deploys the model there, and to what: ``{"float32": "bf16"}``."""
    timed: bool = False
    """Whether `seconds` was measured on this machine, and energy follows from it."""
    layers: list[LayerScore] = []

    def __repr__(self) -> str:
        figures = (self.energy_joules, self.energy_low, self.energy_high, self.dram_bytes, self.seconds)
        return f"HardwareScore({units.cost(*figures)}; {units.count(len(self.layers), 'layer')})"


class WeightShare(_Frozen):
    """How much of the original's weights the passes compressed."""

    compressed: float
    """Share of their bytes, of 1, that are gone or have another type, size or content."""
    left: str = ""
    """Why most of the others stayed as they were."""

    @property
    def is_low(self) -> bool:
        """Whether more than a tenth of the bytes stayed as they were."""
        return self.compressed < 1 - MUCH_LEFT

    def __str__(self) -> str:
        """Say what was left and why."""
        because = f", most of it {self.left}" if self.left else ""
        return f"{1 - self.compressed:.0%} of the weight bytes stayed as they were{because}"


class VariantResult(_Frozen):
    """One variant: done and scored, or unchanged or failed with the reason."""

    name: str
    passes: list[str]
    """The passes, as a recipe writes them."""
    status: Literal["done", "unchanged", "failed"]
    """Unchanged is a variant whose passes found nothing to change: it has no file and no score."""
    reason: str = ""
    """Why it failed, or why nothing was changed."""
    log: str = ""
    """File with the traceback, relative to ``results.json``; empty where the failure was foreseen."""
    path: str = ""
    """The ONNX file, relative to ``results.json``."""
    file_bytes: int = 0
    """Size of the ONNX file and its external data."""
    packed_bytes: int = 0
    """Size of the packed file, model.packed beside the ONNX file; 0 where the recipe asks for none."""
    weight_bytes: int = 0
    weights: WeightShare | None = None
    """How much of the original's weights was compressed; None where no pass compresses."""
    metric: Metric | None = None
    agreement: Agreement | None = None
    latency_seconds: Latency | None = None
    hardware: dict[str, HardwareScore] = {}
    """Scores by profile; a profile that the variant does not run on is in `refused` instead."""
    refused: dict[str, str] = {}
    """Profiles that the variant does not run on, and why."""
    shapes: dict[str, tuple[int, ...]] = {}
    """Sizes by input name of what was timed and estimated: one sample, or the first batch where it is not
    certain which axis of the inputs is the batch."""
    changes: list[Change] = []
    making: list[Making] = []
    """What each pass cost on the machine that ran it."""
    pareto: list[str] = []
    """Profiles on which no other variant is at least as good in metric and in energy, and better in one."""
    limits_missed: list[str] = []
    """Stated limits that were not met, in words."""

    @property
    def remarks(self) -> list[str]:
        """Why it is not plainly done: weights left as they were, what passes were asked for and missed."""
        left = [str(self.weights)] if self.weights is not None and self.weights.is_low else []
        return left + [f"{each.by}: {each.fell_short}" for each in self.changes if each.fell_short]

    def __repr__(self) -> str:
        if self.status != "done":
            return f"VariantResult({self.name!r} {self.status}: {_shortened(self.reason)})"
        parts = [units.si(self.file_bytes, "B")]
        if self.metric:
            parts.append(f"{self.metric.name} {units.number(self.metric.value)}")
        if self.agreement:
            parts.append(self.agreement.figures[0])
        parts += [
            f"{units.si(score.energy_joules, 'J')} on {name}"
            for name, score in list(self.hardware.items())[:PROFILES_SHOWN]
        ]
        missed = f"; missed {units.count(len(self.limits_missed), 'limit')}" if self.limits_missed else ""
        return f"VariantResult({self.name!r}: {', '.join(parts)}{missed})"


class SearchedPoint(_Frozen):
    """A variant that a search has made and measured."""

    name: str = ""
    """The variant of the run that it became; empty for one that was measured on the way."""
    plan: dict[str, Any] = {}
    """Settings of the pass ``per-layer`` that makes it."""
    passes: list[dict[str, Any]] = []
    """The passes that make it, as a recipe writes them."""
    predicted: dict[str, float]
    """Loss (noise over signal at the outputs), joules, seconds, bytes, as predicted."""
    found: dict[str, float]
    """The same of the variant itself, from the calibration batches that were held out."""
    drop: float | None = None
    """Points of the metric that it loses on labels there."""


class Searched(_Frozen):
    """What a search has found."""

    minimised: str
    hardware: str
    original: dict[str, float]
    """Costs of the original as it would be deployed."""
    points: list[SearchedPoint]
    """The frontier, from the closest to the original to the cheapest."""
    evaluated: list[SearchedPoint] = []
    """All that were measured on the way, in that order."""
    notes: list[str] = []

    def variants(self) -> str:
        """Return the frontier as a recipe writes it, in YAML; each variant makes the same file by itself."""
        lines = [f"  {one.name}: {json.dumps(one.passes)}" for one in self.points if one.passes]
        return "\n".join(["variants:", *lines, ""])


class Results(_Frozen):
    """Everything a run found out."""

    schema_version: int = Field(default=1, alias="schema")
    recipe: dict[str, Any]
    """The recipe that was run: path, title, model, settings."""
    environment: dict[str, Any]
    """Versions, CPU and its flags, threads."""
    variants: list[VariantResult]
    searched: Searched | None = None
    """What a search for variants has found."""
    spent: Making | None = None
    """What this run cost, without what an earlier one had done already."""
    carbon: Carbon | None = None
    """None where the recipe states no intensity of the grid."""

    model_config = ConfigDict(populate_by_name=True)

    def __repr__(self) -> str:
        names = [each.name for each in self.variants if each.status == "done"]
        hardware = dict.fromkeys(name for each in self.variants for name in each.hardware)
        others = Counter(each.status for each in self.variants if each.status != "done")
        parts = [
            str(self.recipe.get("title") or self.recipe.get("path") or "no recipe"),
            _shortened(f"{units.count(len(names), 'variant')}: {', '.join(names)}"),
            *(f"{number} {status}" for status, number in others.items()),
            *([_shortened(f"scored on {', '.join(hardware)}")] if hardware else []),
        ]
        return f"Results({'; '.join(parts)})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``results.json``, whole or not at all."""
        path = Path(path)
        scratch = path.with_name(f".{path.name}.partial")
        scratch.write_text(self.model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8")
        scratch.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Results:
        """Read ``results.json``.

        Raises:
            InputError: there is no such file, or it is not a results file.
        """
        path = Path(path)
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; 'compress run' writes it") from error
        except ValidationError as error:
            raise InputError(f"{path}: not a results file: {first_problem(error)}") from error


def _shortened(text: str, longest: int = 120) -> str:
    """Return the beginning of a text, on one line."""
    return textwrap.shorten(text, longest, placeholder=" …")
