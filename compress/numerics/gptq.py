"""GPTQ: round one input feature after the other and let the rest make up for the error.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(2023), in the form of LDLQ (Chee et al., "QuIP", 2023, theorem 6), which gives the same integers from one
Cholesky factor without inverting the Hessian.

Rotations (Hadamard matrices merged into weights, as in QuaRot and SpinQuant) are left out. On SmolLM2-135M in
groups of 64 they lower the squared output error that GPTQ leaves by 14 %, and by 8 % in gate and up
projections. The largest inputs, those of down projections, come from a product that no rotation passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compress.numerics.affine import (
    Quantized,
    integer_type,
    require_finite,
    tensor_ranges,
)
from compress.numerics.formats import IntegerFormat

Row: TypeAlias = npt.NDArray[np.float32]

LEAF = 16
"""Rows that are solved one by one; more rows are halved, and a matrix product joins the halves."""
DRIFT_DAMPING = 0.3
"""Ridge of `Hessian.compensated`, as a share of the mean square input."""
TILE = 256
"""Columns of the Hessian that one matrix product accumulates."""


class Hessian:
    """Second moments of a layer's inputs, ``mean(x xᵀ)``, summed up batch by batch.

    Attributes:
        rows: number of input vectors observed.
    """

    def __init__(self, features: int) -> None:
        self.rows = 0
        self._lower = torch.zeros(features, features)
        self._drift: Tensor | None = None

    def __len__(self) -> int:
        return len(self._lower)

    def observe(self, inputs: Tensor, original: Tensor | None = None) -> None:
        """Add a batch of inputs [..., features], and the inputs of the original model in the same rows.

        Raises:
            ValueError: the inputs hold NaN or infinite values, or have another number of features.
        """
        features = self._lower.shape[0]
        if inputs.shape[-1] != features:
            raise ValueError(f"inputs of {inputs.shape[-1]} features where the layer has {features}")
        require_finite(inputs)
        x = inputs.reshape(-1, features).float()
        self.rows += x.shape[0]
        for start in range(0, features, TILE):  # only the lower half: the other is its mirror
            self._lower[start:, start : start + TILE].addmm_(x[:, start:].T, x[:, start : start + TILE])
        if original is not None:
            require_finite(original)
            drift = torch.zeros(features, features) if self._drift is None else self._drift
            self._drift = drift.addmm_(x.T, original.reshape(-1, features).float() - x)

    def matrix(self) -> Tensor:
        """Return the mean of ``x xᵀ``, [features, features]; zeros if nothing was seen."""
        lower = self._lower.tril()
        return (lower + lower.tril(-1).T) / max(self.rows, 1)

    def compensated(self, weight: Tensor, damping: float = DRIFT_DAMPING) -> Tensor:
        """Return the weight [features, N] that best gives the outputs of `weight` on the original inputs.

        It is the least-squares solution with a ridge towards `weight` of `damping` times the mean square
        input, because few rows of inputs say little about how far other inputs drift. Li et al., "GPTAQ:
        Efficient Finetuning-Free Quantization for Asymmetric Calibration" (2025), puts the same correction
        into the loop over features.

        Raises:
            ValueError: weight or moments are not finite.
        """
        if self._drift is None or not self.rows:
            return weight
        hessian = self.matrix()
        require_finite(weight)
        require_finite(hessian)
        strength = damping * float(hessian.diagonal().mean())
        hessian.diagonal().add_(strength or 1.0)
        factor = torch.linalg.cholesky(hessian)
        return weight + torch.cholesky_solve(self._drift / self.rows @ weight, factor)


def gptq(
    weight: Tensor,
    hessian: Tensor,
    format: IntegerFormat,
    *,
    damping: float = 0.01,
) -> Quantized:
    """Quantize a linear weight for the least error of its outputs.

    Scales are chosen once, from the weights as they are (static groups), so that any order of
    features keeps ONNX's layout of groups.

    Args:
        weight: [K, N], K input features. Layers that share their input are solved faster side by side.
        hessian: [K, K], mean of ``x xᵀ`` over the layer's inputs (`Hessian.matrix`).
        format: what the integers can be, of up to 8 bits. The mse search weighs errors by the mean square
            of the inputs.
        damping: added to the Hessian's diagonal, as a fraction of its mean.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.
    """
    shape = tuple(weight.shape)
    if len(shape) != 2 or hessian.shape != (shape[0], shape[0]):
        raise ValueError(f"Hessian of shape {list(hessian.shape)} does not fit a weight of {list(shape)}")
    require_finite(weight)
    require_finite(hessian)
    low, high = format.limits
    diagonal, granularity = hessian.diagonal(), format.granularity
    importance = diagonal[:, None] if format.method == "mse" else None
    scale, zero_point = tensor_ranges(weight.float(), format, importance)
    steps = granularity.expand(scale, shape).expand(shape)
    middle = granularity.expand(zero_point, shape).expand(shape)
    order = diagonal.argsort(descending=True, stable=True)  # the largest inputs first: "act order"
    values = in_turn(weight.float(), hessian, steps, low - middle, high - middle, order, damping) + middle
    dtype = integer_type(format)
    return Quantized(values.to(dtype), scale.float(), zero_point.to(dtype), format)


def in_turn(
    weight: Tensor, hessian: Tensor, scale: Tensor, low: Tensor, high: Tensor, order: Tensor, damping: float
) -> Tensor:
    """Return the integers of a weight, counted from the zero point, features rounded in `order`.

    Args:
        weight: [K, N].
        hessian: [K, K].
        scale: [K, N], step of each weight.
        low: [K, N], lowest integer of each.
        high: [K, N], highest.
        order: [K].
        damping: as `gptq` takes it.
    """
    ordered = hessian.index_select(0, order).index_select(1, order)
    steps, lowest, highest = (each[order].numpy() for each in (scale, low, high))

    def nearest(row: int, wanted: Row) -> Row:
        code: Row = np.rint(wanted / steps[row])
        return np.clip(code, lowest[row], highest[row], out=code)

    codes = torch.empty_like(weight)
    codes[order] = solve_rows(weight[order], factors(ordered, damping)[0], scale[order], nearest)
    return codes


def factors(hessian: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Return the unit upper triangular A [K, K] and the diagonal of D [K] of ``H = A D Aᵀ``.

    A[j, k] is the share of the error made at feature j < k that is fed into feature k. D[j] is what is
    left of an error's square when all later features have compensated for it. Features whose inputs were
    always zero get a diagonal of one, so that they are rounded on their own.

    Raises:
        ValueError: the Hessian is not positive definite.
    """
    hessian = hessian.float().clone()
    diagonal = hessian.diagonal()
    diagonal[diagonal <= 0] = 1
    step = float(damping * diagonal.mean())
    for _ in range(6):
        diagonal += step
        lower, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
        if not failed:
            upper: Tensor = lower.flip(0, 1)
            root = upper.diagonal().clone()
            return upper.div_(root), root.square()
        step = max(10 * step, 1e-6 * float(diagonal.mean()))
    raise ValueError("the Hessian is not positive definite; give more calibration data")


def solve_rows(weight: Tensor, feedback: Tensor, scale: Tensor, choose: Callable[[int, Row], Row]) -> Tensor:
    """Return integers [K, N] chosen row by row, after the errors of earlier rows are fed into each row.

    Args:
        weight: [K, N].
        feedback: A of `factors`.
        scale: [K, N], step of each weight.
        choose: ``choose(row, wanted)`` returns the integers of one row, for the values they should approach.
    """
    solver = _Solver(weight, feedback, scale, choose)
    solver.solve(0, len(weight))
    return solver.codes


class _Solver:
    """Rounds rows in order.

    Single rows are solved with numpy, whose calls cost a third of torch's where arrays are this short.
    """

    def __init__(
        self, weight: Tensor, feedback: Tensor, scale: Tensor, choose: Callable[[int, Row], Row]
    ) -> None:
        self.target, self.error, self.codes = weight.clone(), weight.clone(), torch.empty_like(weight)
        self.feedback, self.choose = feedback, choose
        self.rows = [item.numpy() for item in (self.target, self.error, self.codes, feedback.T, scale)]

    def solve(self, start: int, end: int) -> None:
        """Round rows start to end; errors of rows before start are in `target` already."""
        if end - start <= LEAF:
            self._round(start, end)
            return
        middle = (start + end) // 2
        self.solve(start, middle)
        self.target[middle:end].addmm_(self.feedback[start:middle, middle:end].T, self.error[start:middle])
        self.solve(middle, end)

    def _round(self, start: int, end: int) -> None:
        target, error, codes, feedback, scale = self.rows
        for row in range(start, end):
            wanted = target[row]
            wanted += feedback[row, start:row] @ error[start:row]
            codes[row] = self.choose(row, wanted)
            error[row] -= codes[row] * scale[row]
