"""Low-rank approximation: a weight as the product of two thin ones, with the least error of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The singular value decomposition of a weight in the metric of its inputs.

    Attributes:
        left: [K, R], R the smaller of K and N.
        right: [R, N]; the weight is ``left @ right``.
        energies: [R], what each component adds to the mean square of the outputs, largest first.
    """

    left: Tensor
    right: Tensor
    energies: Tensor

    @property
    def cost(self) -> int:
        """Numbers in one component of both factors."""
        return self.left.shape[0] + self.right.shape[1]

    @property
    def dense(self) -> int:
        """Numbers in the weight itself."""
        return self.left.shape[0] * self.right.shape[1]

    def shares(self) -> Tensor:
        """Return each component's share of the outputs' energy, [R]."""
        return self.energies / self.energies.sum().clamp(min=1e-30)


def spectrum(weight: Tensor, hessian: Tensor | None = None, damping: float = 1e-3) -> Spectrum:
    """Decompose a weight so that its first r components are the best approximation of rank r.

    It is the best one for the outputs, on inputs of second moments ``H = S Sᵀ``, and follows from the
    singular value decomposition of ``Sᵀ W`` (Wang et al., SVD-LLM, ICLR 2025), or of W without `hessian`.

    Args:
        weight: [K, N].
        hessian: [K, K], mean of ``x xᵀ``.
        damping: added to the Hessian's diagonal, as a fraction of its mean.
    """
    weight = weight.double()
    if hessian is None:
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        return Spectrum(u * s, v, s**2)
    hessian = hessian.double().clone()
    hessian.diagonal().add_(damping * hessian.diagonal().mean() + 1e-12)
    root = torch.linalg.cholesky(hessian)
    u, s, v = torch.linalg.svd(root.T @ weight, full_matrices=False)
    return Spectrum(torch.linalg.solve_triangular(root.T, u * s, upper=True), v, s**2)


def rank_for_error(found: Spectrum, error: float) -> int:
    """Return the smallest rank whose outputs have at most this relative error."""
    tail = 1 - found.shares().cumsum(0)
    return int((tail > error**2).sum()) + 1


def ranks_for_size(spectra: Sequence[Spectrum], numbers: float) -> list[int | None]:
    """Return ranks that fit into a total of `numbers` at the least sum of relative squared errors.

    The components of all layers are taken in the order of their share of energy per number. None stands
    for a layer that is smaller without factorization.
    """
    worth = [found.shares() / found.cost for found in spectra]
    low, high = 0.0, max((float(values.max()) for values in worth), default=0.0)

    def ranks(threshold: float) -> list[int | None]:
        counts = [max(int((values > threshold).sum()), 1) for values in worth]
        return [
            count if count * found.cost < found.dense else None
            for count, found in zip(counts, spectra, strict=True)
        ]

    for _ in range(60):
        middle = (low + high) / 2
        pairs = zip(ranks(middle), spectra, strict=True)
        size = sum(found.dense if rank is None else rank * found.cost for rank, found in pairs)
        low, high = (low, middle) if size <= numbers else (middle, high)
    return ranks(high)
