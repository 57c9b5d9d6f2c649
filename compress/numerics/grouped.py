"""GPTQ of many small problems side by side: the groups of a grouped or depthwise convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.numerics.formats import IntegerFormat

DAMPING = 0.01
"""Added to the diagonal of the moments, as a fraction of its mean."""


def gptq_groups(weight: Tensor, moments: Tensor, scale: Tensor, format: IntegerFormat) -> Tensor:
    """Return integers for the least error of the outputs of each group, float of the shape of `weight`.

    Features are rounded in turn, and later features compensate for the errors of earlier ones: GPTQ in the
    form of LDLQ (Chee et al., "QuIP", 2023, theorem 6). A group whose moments are not positive definite
    is rounded to the nearest.

    Args:
        weight: [groups, features, outputs].
        moments: [groups, features, features], mean of ``x xᵀ`` over each group's inputs.
        scale: [groups, 1, outputs].
        format: what the integers can be; the zero point is zero, and the scales are given.
    """
    features = weight.shape[1]
    low, high = format.limits
    diagonal = moments.diagonal(dim1=1, dim2=2)
    damped = torch.where(diagonal > 0, diagonal, 1.0) + DAMPING * diagonal.mean(1, keepdim=True)
    order = damped.argsort(dim=1, descending=True, stable=True)  # the features with the largest inputs first
    square = moments - torch.diag_embed(diagonal) + torch.diag_embed(damped)
    square = torch.take_along_dim(square, order[:, :, None], 1)
    square = torch.take_along_dim(square, order[:, None, :], 2)
    lower, failed = torch.linalg.cholesky_ex(square.flip(1, 2))
    upper = lower.flip(1, 2)
    share = upper / upper.diagonal(dim1=1, dim2=2)[:, None, :]
    share = torch.where(failed[:, None, None] > 0, torch.eye(features), share)
    sorted_weight = torch.take_along_dim(weight, order[:, :, None], 1)
    error, codes = torch.zeros_like(weight), torch.empty_like(weight)
    for step in range(features):
        made_up = (share[:, :step, step, None] * error[:, :step]).sum(1)
        wanted = (sorted_weight[:, step] + made_up) / scale[:, 0]
        codes[:, step] = wanted.round().clamp(low, high)
        error[:, step] = sorted_weight[:, step] - codes[:, step] * scale[:, 0]
    back = torch.argsort(order, 1)
    return torch.take_along_dim(codes, back[:, :, None], 1)
