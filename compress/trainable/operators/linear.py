"""Products of matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.table import Matrix, Weight, operator


@operator("MatMul")
def matmul(a: Matrix, b: Matrix) -> Tensor:
    """Matrix product over the last two dimensions, the others broadcast."""
    return torch.matmul(a, b)


@operator("Gemm")
def gemm(
    a: Weight,
    b: Weight,
    c: Weight | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803  (the attribute's name)
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """``alpha a b + beta c``, with either factor transposed on request."""
    a = a.T if transA else a
    b = b if transB else b.T
    if alpha == beta == 1.0 and (c is None or c.dim() == 1) and a.is_floating_point():
        return F.linear(a, b, c)
    product = torch.matmul(a, b.T)
    product = (alpha * product).to(a.dtype)
    return product if c is None else product + (beta * c).to(a.dtype)


@operator("Einsum")
def einsum(*inputs: Matrix, equation: str) -> Tensor:
    """Sum of products over the indices of an equation."""
    return torch.einsum(equation, *inputs)


@operator("Det")
def determinant(x: Tensor) -> Tensor:
    """Determinant of the last two dimensions."""
    return torch.det(x)
