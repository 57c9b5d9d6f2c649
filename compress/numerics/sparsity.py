"""Which weights become zero: by magnitude, by magnitude times input (Wanda), or by SparseGPT.

Weights are [K, N], K input features and N outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compress.numerics.gptq import factors

BLOCK = 128
"""Features among which SparseGPT chooses at once."""
DAMPING = 0.01
"""Added to the Hessian's diagonal, as a fraction of its mean."""


def keep_largest(scores: Tensor, ratio: float, group: int | None = None) -> Tensor:
    """Return True for the weights to keep: for each output, all but the share of lowest scores.

    Args:
        scores: [K, N].
        ratio: fraction that is removed, rounded down.
        group: removes that share of every `group` features in a row, 4 with a ratio of one half for the
            2:4 pattern; None for all features.
    """
    size, outputs = scores.shape
    width = group or size
    groups = scores.reshape(size // width, width, outputs)
    order = groups.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return (order >= int(width * ratio + 1e-9)).reshape(size, outputs)


def wanda(weight: Tensor, mean_square: Tensor) -> Tensor:
    """Return ``|w| |x|``, [K, N] (Sun et al., A Simple and Effective Pruning Approach, ICLR 2024).

    Args:
        weight: [K, N].
        mean_square: [K], of each input feature.
    """
    return weight.abs() * mean_square.clamp(min=0).sqrt()[:, None]


def sparsegpt(weight: Tensor, hessian: Tensor, ratio: float, group: int | None = None) -> Tensor:
    """Return the weight with zeros, the rest adjusted for the least error of the outputs.

    Frantar and Alistarh, SparseGPT, ICML 2023: features are taken in turn, and later features compensate
    for the error of earlier ones. With ``H = A D Aᵀ``, A unit upper triangular, zeroing the
    adjusted weight v of feature k costs ``D[k] v²``.

    Args:
        weight: [K, N].
        hessian: [K, K], mean of ``x xᵀ``.
        ratio: fraction that is removed of every block of 128 features, or of every group.
        group: see `keep_largest`.

    Raises:
        ValueError: the Hessian is not positive definite.
    """
    gain = factors(hessian, DAMPING)[0]
    cost = torch.linalg.solve_triangular(gain, hessian, upper=True).diagonal().clamp(min=1e-12)
    lost = torch.zeros_like(weight)
    result = torch.zeros_like(weight)
    size = len(weight)
    for start in range(0, size, group or BLOCK):
        end = min(start + (group or BLOCK), size)
        adjusted = weight[start:end] + gain[:start, start:end].T @ lost[:start]
        keep = keep_largest(cost[start:end, None] * adjusted**2, ratio)
        for k in range(start, end):
            value = adjusted[k - start] + gain[start:k, k] @ lost[start:k]
            result[k] = value * keep[k - start]
            lost[k] = weight[k] - result[k]
    return result
