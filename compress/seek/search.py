"""The search for the best models under a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from compress.errors import InputError, LimitError, first_problem
from compress.recipe.wanted import Choice, Quantity, Search
from compress.results import METRICS
from compress.seek.blind import SAMPLERS, explore
from compress.seek.frontier import Frontier, Point, spread, undominated
from compress.seek.journal import Journal
from compress.seek.qubo import Qubo
from compress.seek.solver import solve
from compress.seek.study import Study
from compress.seek.walk import Walk, Wish, blocking

if TYPE_CHECKING:
    from compress.model import Model

VARIANTS = 9
"""Most variants of a frontier."""
SLACK = 1 + 1e-9
"""What a limit allows for rounding."""


def search(
    model: Model,
    *,
    minimise: Quantity = "energy",
    hardware: str = "cpu",
    max_drop: str | float | None = None,
    min_snr: float | None = None,
    limits: Mapping[str, str | float] = MappingProxyType({}),
    metric: str = "accuracy",
    choices: Sequence[Choice] = ("bits", "channels"),
    evaluations: int = 24,
    sampler: str = "milp",
    finetune: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Frontier:
    """Return the variants of a model that cost the least for what they lose.

    A quarter of the calibration batches is held out of calibration, and measures what is lost. Labels there
    tell what the metric loses; it is met on data that the variants were chosen on, so judge the one you take
    on data of its own.

    Args:
        model: a float model with calibration data.
        minimise: what is to be small: energy, seconds or dram_bytes of one inference on the hardware, flash
            (bytes of weights as deployed there), file (bytes of weights as stored) or macs.
        hardware: the profile that prices it.
        max_drop: points of the metric that may be lost, or per cent of the original's value.
        min_snr: decibels that the outputs keep, where there are no labels.
        limits: largest values of other quantities, and of ``ram``: ``{"flash": "400 kB", "energy": "50%"}``.
        metric: what `max_drop` is about.
        choices: what may differ between layers: bits of weights and activations, channels of groups.
        evaluations: variants that may be made and measured.
        sampler: who chooses what is measured: milp, nsga2, tpe, random, qubo or ``module:Class``.
        finetune: settings of `Finetune`, which trains the variants that you take between pruning and
            quantization.
        trust: whether a sampler of your own may run.

    Raises:
        DataError: there are no calibration data, or no labels for the metric.
        HardwareError: there is no such profile.
        InputError: a limit has a wrong unit, or there is no such quantity, choice or sampler.
        LimitError: nothing keeps the limits; the message says what the least reachable values are.
    """
    stated = {"drop": max_drop, "min_snr": min_snr, **limits}
    try:
        wanted = Search.model_validate(
            {
                "minimise": minimise,
                "hardware": hardware,
                "limits": {name: value for name, value in stated.items() if value is not None},
                "choices": tuple(choices),
                "evaluations": evaluations,
                "sampler": sampler,
                "finetune": finetune,
            }
        )
    except ValidationError as error:
        raise InputError(f"search: {first_problem(error)}") from error
    return find(model, wanted, metric, trust=trust)


def find(
    model: Model, wanted: Search, metric: str, journal: Path | None = None, *, trust: bool = False
) -> Frontier:
    """Return the frontier of a search; see `search`.

    Args:
        model: a float model with calibration data.
        wanted: what is searched for; it names a profile.
        metric: what a limit on the drop is about.
        journal: file that keeps what was measured, so that a search that was stopped goes on.
        trust: whether a sampler that the user names may run.

    Raises:
        InputError: the drop of another metric is limited.
        LimitError: nothing keeps the limits.
    """
    if wanted.limits.drop is not None and metric not in METRICS:
        raise InputError(f"a search can limit the drop of {', '.join(METRICS)}, not of {metric!r}")
    qubo = None if wanted.sampler in ("milp", *SAMPLERS) else Qubo(wanted.sampler, trust=trust)
    study = Study(model, wanted, metric, Journal(journal))
    limits = wanted.limits.most(study.original)
    if unreachable := blocking(study.problem, {n: x for n, x in limits.items() if n != "ram"}):
        raise LimitError(f"no variant keeps the limits on {study.profile.id}: {'; '.join(unreachable)}")
    noise = math.inf if wanted.limits.min_snr is None else 10 ** (-wanted.limits.min_snr / 10)
    within = {name: limit for name, limit in limits.items() if name != "ram"}
    wish = Wish(wanted.minimise, within, study.most_lost, noise, wanted.evaluations)
    walk = Walk(study.problem, wish, study.evaluated, qubo or solve)
    if wanted.sampler in SAMPLERS:
        made = explore(wanted.sampler, study.problem, wish, study.evaluated)
    else:
        walk.go()
        made = walk.points
    if not made:
        raise LimitError(
            f"no variant keeps all limits on {study.profile.id}: {_best_within(walk.least_loss())}"
        )
    kept = [
        point
        for point in made
        if wish.keeps(point) and all(point.found[name] <= limit * SLACK for name, limit in limits.items())
    ]
    if not kept:
        raise LimitError(f"none of {len(made)} variants keeps the limits; {_closest(made)}")
    points = spread(undominated(kept, wanted.minimise), wanted.minimise, VARIANTS)
    return Frontier(
        wanted.minimise, study.profile.id, study.original, points, made, qubo.notes if qubo else []
    )


def _best_within(loss: float | None) -> str:
    if loss is None:
        return "each can be kept, but not all together"
    return f"those on costs leave {-10 * math.log10(loss):.1f} dB at best, as predicted"


def _closest(points: Sequence[Point]) -> str:
    best = min(points, key=lambda point: (point.lost, point.noise))
    return f"the closest to the original: {best!r}"
