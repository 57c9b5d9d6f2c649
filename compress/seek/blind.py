"""Samplers that know nothing of the predictions: Optuna's NSGA-II, TPE and random search.

They propose whole assignments, and learn from loss and cost as found. They are seeded, and all that is found
is in the search's journal: a search that was stopped is played again from there, proposal by proposal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from compress.errors import LimitError
from compress.seek.extras import needed
from compress.seek.frontier import Point
from compress.seek.problem import Assignment, Problem
from compress.seek.solver import LOSS, solve
from compress.seek.walk import Wish

SAMPLERS = {"nsga2": "NSGAIISampler", "tpe": "TPESampler", "random": "RandomSampler"}
"""Optuna's classes."""
UNUSABLE = 1e3
"""Predicted loss from which on an option is never proposed."""
PROPOSALS = 10
"""Proposals for every evaluation; many are what is known already."""
LEAST = 1e-12
"""The least loss that samplers can tell apart from none."""


def explore(
    sampler: str, problem: Problem, wish: Wish, evaluate: Callable[[Assignment], Point]
) -> list[Point]:
    """Return the variants that a sampler asked for, as many as the wish allows.

    Args:
        sampler: nsga2, tpe or random.
        problem: what can be decided.
        wish: what is searched for.
        evaluate: makes and measures the variant of an assignment.

    Raises:
        InputError: Optuna is not installed.
    """
    optuna = needed("optuna", "search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    usable = [np.flatnonzero(losses < UNUSABLE).tolist() or [0] for losses in problem.loss]
    choices = {str(number): options for number, options in enumerate(usable) if len(options) > 1}
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=getattr(optuna.samplers, SAMPLERS[sampler])(seed=0)
    )
    for start in uniform(problem, usable):
        study.enqueue_trial({name: start[int(name)] for name in choices})
    known: dict[Assignment, Point] = {}
    for _ in range(PROPOSALS * wish.evaluations):
        if len(known) == wish.evaluations:
            break
        trial = study.ask()
        proposed = {name: trial.suggest_categorical(name, options) for name, options in choices.items()}
        wanted = tuple(proposed.get(str(number), options[0]) for number, options in enumerate(usable))
        chosen = repaired(problem, wanted)
        if chosen not in known:
            known[chosen] = evaluate(chosen)
        point = known[chosen]
        study.tell(trial, [math.log10(max(point.noise, LEAST)), point.found[wish.minimise]])
    return [*known.values()]


def uniform(problem: Problem, usable: list[list[int]]) -> Iterator[Assignment]:
    """Yield four variants that treat all layers alike: 8 bits, 4 bits, fewer channels, both."""
    for bits, middle in ((1, False), (2, False), (0, True), (1, True)):
        places = [
            len(options) // 2 * middle if decision.kind == "channels" else min(bits, len(options) - 1)
            for decision, options in zip(problem.decisions, usable, strict=True)
        ]
        yield tuple(options[place] for options, place in zip(usable, places, strict=True))


def repaired(problem: Problem, wanted: Assignment) -> Assignment:
    """Return the assignment that keeps all conditions and differs in the fewest decisions.

    Raises:
        LimitError: none keeps them.
    """
    if problem.holds(wanted):
        return wanted
    differs = [
        np.where(losses < UNUSABLE, np.arange(len(losses)) != option, UNUSABLE)
        for losses, option in zip(problem.loss, wanted, strict=True)
    ]
    found = solve(Problem(problem.decisions, differs, [], problem.links), LOSS, {})
    if found is None:
        raise LimitError("no variant keeps all conditions between layers")
    return found
