"""How close variants are to one original, judged where its outputs are decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import onnx_ir as ir
from scipy.special import stdtrit

from compress.data import Feeds
from compress.diagnose.agreement import Run, agreement
from compress.diagnose.outputs import decided, read_outputs
from compress.graph.session import session


class Closeness:
    """Measures models against an original by the floats that decide the outputs.

    Args:
        original: the original.
        batches: feeds to compare on.
        run: runs the original, where a session is open already.
    """

    def __init__(self, original: ir.Model, batches: Sequence[Feeds], run: Run | None = None) -> None:
        deciding = decided(original)
        self._batches = batches
        self._outputs = read_outputs(deciding.graph)
        run = run if run and deciding is original else partial(session(deciding).run, None)
        self._wanted = [run(feeds) for feeds in batches]

    def __call__(self, model: ir.Model) -> float:
        """Return decibels, as `Agreement` does: infinite without a difference, -infinite where unknown.

        Raises:
            PassError: values are not finite where the original's are, or have other shapes.
        """
        run = partial(session(decided(model)).run, None)
        return self._decibels(run, range(len(self._batches)))

    def least(self, model: ir.Model) -> float:
        """Return the lower end of the one-sided 95 % interval of the decibels.

        Noise over signal differs from batch to batch, and its mean by Student's distribution. One batch
        says nothing of others: its own value is returned.
        """
        run = partial(session(decided(model)).run, None)
        decibels = [self._decibels(run, [number]) for number in range(len(self._batches))]
        parts = 10 ** (-np.array(decibels) / 10)
        if len(parts) < 2 or not np.isfinite(parts).all():
            return -10 * math.log10(parts.max()) if parts.max() else math.inf
        highest = parts.mean() + stdtrit(len(parts) - 1, 0.95) * parts.std(ddof=1) / math.sqrt(len(parts))
        return -10 * math.log10(highest) if highest else math.inf

    def _decibels(self, run: Run, numbers: Sequence[int]) -> float:
        wanted = iter([self._wanted[number] for number in numbers])
        batches = [self._batches[number] for number in numbers]
        close = agreement(run, lambda _: next(wanted), batches, self._outputs).decibels
        return -math.inf if close is None else close
