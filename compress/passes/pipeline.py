"""Passes in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from compress.errors import PassError
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


class Pipeline:
    """Passes in order; calling it with a model returns the changed copy."""

    def __init__(self, passes: Iterable[Pass]) -> None:
        self.passes = tuple(passes)

    def __call__(self, model: Model) -> Model:
        """Return what the passes make of `model`, which stays as it was.

        Raises:
            PassError: a pass cannot do its work; the message names it and what came before.
        """
        for number, each in enumerate(self.passes):
            model = apply(each, model, self.passes[:number])
        return model

    def __repr__(self) -> str:
        return f"Pipeline([{', '.join(map(repr, self.passes))}])"


def apply(each: Pass, model: Model, before: Sequence[Pass] = ()) -> Model:
    """Apply one pass; errors name it and the passes before it."""
    try:
        return each(model)
    except PassError as error:
        after = f" (after {', '.join(map(str, before))})" if before else ""
        raise PassError(f"{each}{after}: {error}") from error
