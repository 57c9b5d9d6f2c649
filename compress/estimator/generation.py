"""A language model's prompt and the tokens it writes, with its keys and values cached."""

from __future__ import annotations

from dataclasses import dataclass

from compress.estimator.cost import Cost
from compress.estimator.hardware import Profile
from compress.estimator.scoring import Source, estimate


@dataclass(frozen=True)
class Generation:
    """Cost of reading a prompt once, and of writing tokens after it."""

    prefill: Cost
    """The whole prompt in one run."""
    token: Cost
    """One token, with the cache filled to the middle of what is written."""
    tokens: int

    @property
    def total(self) -> Cost:
        """Prompt and tokens. Costs grow in proportion to the context, so the middle token is the mean."""
        return sum([self.token] * self.tokens, self.prefill)


def estimate_generation(
    model: Source,
    hardware: str | Profile,
    *,
    prompt: int,
    tokens: int,
    sequence: str = "sequence",
    past: str = "past",
) -> Generation:
    """Return the cost of a prompt and of the tokens written after it.

    Args:
        model: a graph with inputs for past keys and values, and a symbolic dimension for their length.
        hardware: as for `estimate`.
        prompt: tokens read at once.
        tokens: tokens written one by one; each reads all weights and the whole cache.
        sequence: name of the symbolic dimension of new tokens.
        past: name of the symbolic dimension of cached ones.

    Raises:
        ModelError: the model has no such dimensions.
    """
    middle = prompt + tokens // 2
    prefill = estimate(model, hardware, shapes={sequence: prompt, past: 0}).total
    token = estimate(model, hardware, shapes={sequence: 1, past: middle}).total
    return Generation(prefill, token, tokens)
