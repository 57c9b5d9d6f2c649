"""What every single change loses at the outputs, measured; what several lose is about the sum.

Noise over signal of each change alone ranks mixed configurations almost as the truth does, where local errors
or a diagonal of the curvature do not: roundings by GPTQ cancel on purpose. Channels are measured repaired,
since repair takes nine tenths of their loss and more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from compress.progress import track
from compress.seek.problem import Decision, Table
from compress.seek.space import FLOAT

MEASURED_SHARES = (0.875, 0.5, 0.25)
"""Shares of channels whose loss is measured; others lie between, on a logarithmic scale."""
TINY = 1e-12
"""Noise that stands for none at all, where logarithms are taken."""
UNKNOWN = 1e6
"""Loss of an option that is not worth measuring, because it saves nothing: it is never chosen."""
Measure: TypeAlias = Callable[[int, float], float]
"""Returns noise over signal at the outputs, by the number of the decision and an option of it."""
Wanted: TypeAlias = Callable[[int, int], bool]
"""Tells of the numbers of a decision and of an option whether the option is worth measuring."""


def losses(decisions: Sequence[Decision], measure: Measure, wanted: Wanted) -> list[Table]:
    """Return the noise of every option of every decision."""
    return [
        _loss(number, decision, measure, wanted)
        for number, decision in enumerate(track(decisions, "loss of single changes"))
    ]


def _loss(number: int, decision: Decision, measure: Measure, wanted: Wanted) -> Table:
    options = decision.options
    if decision.kind == "arithmetic":  # its codes and weights lose; they are decided on their own
        return np.zeros(len(options))
    worth = [place == 0 or wanted(number, place) for place in range(len(options))]
    if decision.kind == "channels":
        return _of_channels(number, options, measure) if worth[-1] else _unmeasured(options)
    none = FLOAT if decision.kind == "weights" else 0.0
    return np.array(
        [
            0.0 if option == none else measure(number, option) if known else UNKNOWN
            for option, known in zip(options, worth, strict=True)
        ]
    )


def _of_channels(number: int, shares: Sequence[float], measure: Measure) -> Table:
    """Return the noise of every share that a group may keep; fewer channels never lose less."""
    measured = {share: measure(number, share) for share in shares if share in MEASURED_SHARES}
    if not measured:
        return _unmeasured(shares)
    growing = np.maximum.accumulate([max(noise, TINY) for noise in measured.values()])
    between = np.interp([1 - share for share in shares], [1 - share for share in measured], np.log(growing))
    return np.where(np.array(shares) < 1, np.exp(between), 0.0)


def _unmeasured(options: Sequence[float]) -> Table:
    return np.array([0.0, *[UNKNOWN] * (len(options) - 1)])
