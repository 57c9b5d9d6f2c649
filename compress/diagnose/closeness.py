"""How close variants are to one original, judged where its outputs are decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import onnx_ir as ir

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
        run, wanted = partial(session(decided(model)).run, None), iter(self._wanted)
        close = agreement(run, lambda _: next(wanted), self._batches, self._outputs).decibels
        return -math.inf if close is None else close
