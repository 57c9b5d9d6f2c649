"""Least squares from second moments that are gathered batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Moments = npt.NDArray[np.float64]

DAMPINGS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Strengths of the prior among which cross-validation chooses."""


class LeastSquares:
    """Fit ``y = x @ weight + bias`` to samples that are read once; memory does not grow with their number.

    The sum of two fits of the same sizes is the fit of all their samples.

    Args:
        groups: number of independent problems of the same shape, such as the groups of a convolution.
        features: inputs of each.
        outputs: targets of each.
    """

    def __init__(self, groups: int, features: int, outputs: int) -> None:
        self.samples = 0
        self._inputs: Moments = np.zeros((groups, features))
        self._targets: Moments = np.zeros((groups, outputs))
        self._square: Moments = np.zeros((groups, features, features))
        self._cross: Moments = np.zeros((groups, features, outputs))

    def __add__(self, other: LeastSquares) -> LeastSquares:
        groups, features, outputs = self._cross.shape
        both = LeastSquares(groups, features, outputs)
        both.samples = self.samples + other.samples
        both._inputs = self._inputs + other._inputs
        both._targets = self._targets + other._targets
        both._square = self._square + other._square
        both._cross = self._cross + other._cross
        return both

    def observe(self, inputs: Array, targets: Array) -> None:
        """Add samples.

        Args:
            inputs: shape [groups, samples, features].
            targets: shape [groups, samples, outputs].
        """
        turned = inputs.transpose(0, 2, 1)
        self.samples += inputs.shape[1]
        self._inputs += inputs.sum(axis=1)
        self._targets += targets.sum(axis=1)
        self._square += turned @ inputs
        self._cross += turned @ targets

    def solve(self, prior: Array, damping: float, *, intercept: bool) -> tuple[Moments, Moments]:
        """Return the weight [groups, features, outputs] and bias [groups, outputs] of least error.

        This is ridge regression towards `prior` instead of zero: it minimizes
        ``|x w + b - y|^2 + d |w - prior|^2``, where ``d`` is `damping` times the mean square input.
        The weights keep the prior's values in directions in which the inputs do not vary.

        Args:
            prior: weights before the fit, shape [groups, features, outputs].
            damping: strength of the prior, relative to the mean diagonal of the input moments.
            intercept: whether a bias is fitted; without, it is zero.
        """
        count = max(self.samples, 1)
        mean_in, mean_out = self._inputs / count, self._targets / count
        if not intercept:
            mean_in, mean_out = np.zeros_like(mean_in), np.zeros_like(mean_out)
        square = self._square / count - mean_in[:, :, None] * mean_in[:, None, :]
        cross = self._cross / count - mean_in[:, :, None] * mean_out[:, None, :]
        diagonal = np.einsum("gii->gi", square)
        strength = damping * diagonal.mean(axis=1) + np.finfo(np.float32).tiny
        diagonal += strength[:, None]
        weight = np.linalg.solve(square, cross + strength[:, None, None] * prior)
        return weight, mean_out - np.einsum("gi,gio->go", mean_in, weight)

    def error(self, weight: Array, bias: Array) -> float:
        """Return the mean squared error on the samples, less the targets' mean square."""
        count = max(self.samples, 1)
        residual = self._square @ weight - 2 * self._cross
        offset = np.einsum("gi,gio->go", self._inputs, weight) - self._targets
        total = np.vdot(weight, residual) + np.vdot(bias, 2 * offset + self.samples * bias)
        return float(total) / count


def cross_validated(
    halves: Sequence[LeastSquares], prior: Array, bias: Array, *, intercept: bool
) -> tuple[Moments, Moments] | None:
    """Return the weight and bias of `LeastSquares.solve` at the damping that does best on unseen samples.

    Each half of the samples is fitted at each of `DAMPINGS` and judged on the other half. The best damping
    is then used for both halves together. Returns None if the prior does better than every fit.

    Args:
        halves: two fits of different samples.
        prior: weights before the fit, shape [groups, features, outputs].
        bias: bias before the fit, shape [groups, outputs].
        intercept: whether a bias is fitted; without, it is zero.
    """
    pairs = (halves, halves[::-1])
    errors = {
        damping: sum(other.error(*one.solve(prior, damping, intercept=intercept)) for one, other in pairs)
        for damping in DAMPINGS
    }
    best = min(DAMPINGS, key=errors.__getitem__)
    if errors[best] >= sum(half.error(prior, bias) for half in halves):
        return None
    return (halves[0] + halves[1]).solve(prior, best, intercept=intercept)
