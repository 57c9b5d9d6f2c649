"""Least squares from second moments that are gathered batch by batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Moments = npt.NDArray[np.float64]


class LeastSquares:
    """Fit ``y = x @ weight + bias`` to samples that are seen once; memory does not grow with them.

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

    def update(self, inputs: Array, targets: Array) -> None:
        """Take in samples.

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

        Ridge regression that is drawn to `prior` instead of zero: it minimizes
        ``|x w + b - y|^2 + d |w - prior|^2``, with ``d`` the `damping` times the mean square input.
        Directions that the samples do not show keep the prior's weights.

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
