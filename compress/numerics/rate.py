"""Entropy-constrained quantization: errors of weights are traded against the length of their codes.

With one step for all values of equal importance, and rounding towards shorter codes where the error allows
it, the rate is within a quarter of a bit of the optimum at that error (Gish and Pierce, "Asymptotically
efficient quantizing", 1968; Sullivan, "Efficient scalar quantization of exponential and Laplacian random
variables", 1996). A fixed number of levels between the extremes of each channel instead gives some channels
more precision than others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compress.numerics.affine import require_finite
from compress.numerics.gptq import factors, solve_rows

LARGEST = 127
"""Largest magnitude of a code, so that codes fit into 8 bits."""
SLOPE = math.log(2) / 6
"""Error, in squared steps, that one bit is worth: the slope of ``step² / 12`` over the entropy, which falls
by one bit as the step doubles."""
SCALE_BITS = 32
"""Bits of a scale."""
DAMPING = 0.1
"""Added to the diagonal of the second moments, as a fraction of its mean, against overfitting."""
LEAST_COST = 1e-20
"""Smallest cost of a squared error; the cost is zero for weights that no output depends on."""
ROUNDS = 2
"""Times that codes are chosen again for the code lengths of the last choice."""

Floats: TypeAlias = npt.NDArray[np.float32]


def entropy(codes: Tensor) -> float:
    """Return the order-0 entropy of integer `codes` in bits a code; 0 for none."""
    if not codes.numel():
        return 0.0
    whole = codes.flatten().to(torch.int64)
    share = (whole - whole.min()).bincount().double() / whole.numel()
    share = share[share > 0]
    return max(float(-(share * share.log2()).sum()), 0.0)


def code_lengths(codes: Floats) -> Floats:
    """Return the bits of every code from -`LARGEST` to `LARGEST` in an ideal code for such `codes`.

    Half an occurrence is added to the count of each code (the Krichevsky-Trofimov estimator).
    """
    counts = np.bincount((codes.reshape(-1) + LARGEST).astype(np.intp), minlength=2 * LARGEST + 1) + 0.5
    lengths: Floats = -np.log2(counts / counts.sum()).astype(np.float32)
    return lengths


def cheapest(wanted: Floats, lengths: Floats) -> Floats:
    """Return the codes with the least sum of squared error and `SLOPE` times code length.

    The nearest code, its neighbour towards zero, and zero are tried.

    Args:
        wanted: values in steps.
        lengths: from `code_lengths`.
    """
    best = np.clip(np.rint(wanted), -LARGEST, LARGEST)
    least = _cost(wanted, best, lengths)
    for other in (best - np.sign(best), np.zeros_like(best)):
        cost = _cost(wanted, other, lengths)
        better = cost < least
        best, least = np.where(better, other, best), np.where(better, cost, least)
    return best


def _cost(wanted: Floats, codes: Floats, lengths: Floats) -> Floats:
    bits: Floats = lengths[(codes + LARGEST).astype(np.intp)]
    cost: Floats = np.square(wanted - codes) + np.float32(SLOPE) * bits
    return cost


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A weight [K, N] in integers.

    Attributes:
        codes: float32 [K, N], whole numbers from -`LARGEST` to `LARGEST`.
        scale: float32 [N], or [1] for all columns together.
    """

    codes: Tensor
    scale: Tensor

    @property
    def bits(self) -> float:
        """Bits of the codes, entropy coded, and of the scales."""
        return entropy(self.codes) * self.codes.numel() + SCALE_BITS * self.scale.numel()


class PricedWeight:
    """A weight to be coded, and the cost of its errors.

    Args:
        weight: [K, N].
        cost: cost of one squared error; the lower it is relative to other weights, the coarser the codes.
        hessian: [K, K] second moments of the inputs, or None; with them errors are fed forward as in GPTQ.

    Raises:
        ValueError: a value is not finite.
    """

    def __init__(self, weight: Tensor, cost: float, hessian: Tensor | None = None) -> None:
        require_finite(weight)
        self.weight, self.cost = weight.float(), max(cost, LEAST_COST)
        self.peaks = self.weight.abs().amax(0)
        self.order = torch.arange(len(weight))
        self.feedback: Tensor | None = None
        if hessian is not None:
            require_finite(hessian)
            diagonal = hessian.diagonal()
            self.order = diagonal.argsort(descending=True, stable=True)
            self.feedback, left = factors(hessian[self.order[:, None], self.order], DAMPING)
            self.cost *= float(left.mean() / diagonal.mean().clamp(min=1e-30))

    def steps(self, quality: float) -> Tensor:
        """Return the steps at which one bit saves the same cost in every weight, [N], or [1] for all columns.

        Steps are large enough that codes stay in their range. Columns get their own steps if a few large
        weights would make a common step too coarse, and the saved error is worth the bits of the scales.
        """
        wanted = quality * self.cost**-0.5
        one = max(wanted, float(self.peaks.max()) / LARGEST)
        own = (self.peaks / LARGEST).clamp(min=wanted)

        def bits(steps: Tensor) -> float:
            return float((steps.square() / (12 * SLOPE * wanted**2) - steps.log2()).mean())

        shared = torch.tensor([one])
        return own if len(self.weight) * (bits(shared) - bits(own)) > SCALE_BITS else shared

    def code(self, quality: float, every: int = 1) -> Coded:
        """Choose each code independently of the others.

        Args:
            quality: root of the cost of an error of one step.
            every: only every so many rows are coded, as a sample; 1 codes all rows.
        """
        steps = self.steps(quality)
        wanted = (self.weight[::every] / steps).numpy()
        codes = np.clip(np.rint(wanted), -LARGEST, LARGEST)
        for _ in range(ROUNDS):
            codes = cheapest(wanted, code_lengths(codes))
        return Coded(torch.from_numpy(codes), steps)

    def rate(self, quality: float) -> float:
        """Estimate from a sample how many bits the result of `solve` takes."""
        coded = self.code(quality, max(self.weight.numel() // SAMPLE, 1))
        return entropy(coded.codes) * self.weight.numel() + SCALE_BITS * coded.scale.numel()

    def solve(self, quality: float) -> Coded:
        """Choose codes in turn with error feedback; without second moments, fit the scales to the codes."""
        coded = self.code(quality)
        if self.feedback is None:
            return Coded(coded.codes, _fitted(self.weight, coded.codes, coded.scale))
        weight, lengths = self.weight[self.order], code_lengths(coded.codes.numpy())
        scale = coded.scale.expand(weight.shape).contiguous()
        inverse = (1 / coded.scale).numpy()
        codes = torch.empty_like(weight)
        codes[self.order] = solve_rows(
            weight, self.feedback, scale, lambda row, wanted: cheapest(wanted * inverse, lengths)
        )
        return Coded(codes, coded.scale)


def _fitted(weight: Tensor, codes: Tensor, steps: Tensor) -> Tensor:
    """Return the least-squares scales for `codes`; `steps` where all codes are zero."""
    axes = (0,) if steps.numel() > 1 else (0, 1)
    product, square = (weight * codes).sum(axes).reshape(-1), codes.square().sum(axes).reshape(-1)
    return torch.where(square > 0, product / square.clamp(min=1), steps)


SAMPLE = 1 << 14
"""Elements of a weight that are coded during the search for the quality."""
TOLERANCE = 0.01
"""Fraction by which the rate may lie below the target."""
GUESSES, CORRECTIONS = 12, 4
"""Search steps on samples, and then on all weights, towards the quality that gives the target rate."""


def code_to_rate(weights: Sequence[PricedWeight], rate: float) -> list[Coded]:
    """Code all weights at the one quality that takes `rate` bits a weight on average, or a little less.

    One bit saves the same cost in every weight, so that no other distribution of bits costs less.

    Raises:
        ValueError: the rate cannot be reached.
    """
    total = sum(each.weight.numel() for each in weights)
    if not total:
        return []
    goal = (1 - TOLERANCE / 2) * rate

    def nearer(quality: float, bits: float) -> float:
        # A step of twice the size saves one bit, or a fraction of the rate where that is below one bit.
        return quality * math.exp2(max(min((bits / total - goal) / min(1.0, goal), 4.0), -4.0))

    energy = sum(each.cost * float(each.weight.square().sum()) for each in weights)
    quality = math.sqrt(energy / total) or 1.0
    for _ in range(GUESSES):
        quality = nearer(quality, sum(each.rate(quality) for each in weights))
    best: list[Coded] = []
    for _ in range(CORRECTIONS):
        found = [each.solve(quality) for each in weights]
        bits = sum(coded.bits for coded in found)
        if bits <= rate * total:
            best = found
            if bits >= (1 - TOLERANCE) * rate * total:
                break
        quality = nearer(quality, bits)
    if not best:
        raise ValueError(
            f"a rate of {rate:g} bits cannot be reached, because scales and rare codes take more; raise it"
        )
    return best
