"""AdaRound: learn for every weight whether to round it up or down.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from compress.numerics.affine import Quantized, require_finite

STRETCH = 1.2
"""The sigmoid is stretched from (0, 1) to (-0.1, 1.1), so that it reaches both ends (eq. 23)."""
WARMUP = 0.2
"""Share of the steps before the regularizer acts."""
SHARPNESS = (20.0, 2.0)
"""Exponent beta of the regularizer at its start and end (eq. 24)."""
BATCH = 32
"""Samples of one step."""
RATE = 0.1
"""Learning rate of Adam."""
REGULARIZATION = 30.0
"""The paper's lambda, here for the mean over the weights and for errors relative to the start's."""


def learn_rounding(
    weight: Tensor,
    quantized: Quantized,
    forward: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    steps: int = 1000,
    seed: int = 0,
) -> Quantized:
    """Return `quantized` with each weight rounded up or down for the least error of the layer's outputs.

    Returns `quantized` itself if learning does not lower the error over all inputs.

    Args:
        weight: the weight before quantization, any rank.
        quantized: what `quantize` made of it; scales and zero points stay.
        forward: the layer's outputs for a batch of inputs and a weight of the shape of `weight`.
        inputs: [samples, ...] inputs of the layer, preferably those that it has in the quantized model.
        targets: [samples, ...] outputs of the layer in the original model.
        steps: optimizer steps.
        seed: of the draw of samples; the same seed gives the same result.

    Raises:
        ValueError: samples of inputs and targets differ in number, or values are not finite.
    """
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets")
    for tensor in (weight, inputs, targets):
        require_finite(tensor)
    shape = tuple(weight.shape)
    scale = quantized.granularity.expand(quantized.scale, shape)
    zero_point = quantized.granularity.expand(quantized.zero_point.float(), shape)
    low, high = quantized.format.limits
    floor = (weight.float() / scale).floor() + zero_point

    def rounded(up: Tensor) -> Tensor:
        return (floor + up).clamp(low, high)

    def loss(codes: Tensor, rows: Tensor | slice) -> Tensor:
        return (forward(inputs[rows], (codes - zero_point) * scale) - targets[rows]).square().mean()

    with torch.no_grad():
        start = float(loss(quantized.values.float(), slice(None)))
    if start == 0:
        return quantized
    logits = _inverse_gate((weight.float() / scale + zero_point - floor).clamp(0.01, 0.99)).requires_grad_()
    draws = _draws(len(inputs), steps, seed)
    _learn(logits, lambda up, rows: loss(rounded(up), rows) / start, draws, steps)
    with torch.no_grad():
        codes = rounded((_gate(logits) >= 0.5).float())
        better = float(loss(codes, slice(None))) < start
    return replace(quantized, values=codes.to(quantized.values.dtype)) if better else quantized


def _draws(samples: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield the samples of each step."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(samples, (min(BATCH, samples),), generator=generator) for _ in range(steps))


def _learn(
    logits: Tensor,
    error: Callable[[Tensor, Tensor], Tensor],
    draws: Iterable[Tensor],
    steps: int,
) -> None:
    """Train the gates in place on the error of each draw and, after the warm-up, on the regularizer."""
    optimizer = torch.optim.Adam([logits], lr=RATE)
    for step, rows in enumerate(draws):
        up = _gate(logits)
        objective = error(up, rows)
        progress = (step / steps - WARMUP) / (1 - WARMUP)
        if progress > 0:
            objective = objective + REGULARIZATION * _indecision(up, progress)
        optimizer.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _indecision(up: Tensor, progress: float) -> Tensor:
    """Return the regularizer: how far the gates are from 0 and 1 on average (eq. 24)."""
    beta = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * progress
    return (1 - (2 * up - 1).abs().pow(beta)).mean()


def _gate(logits: Tensor) -> Tensor:
    """Return how far up each weight is rounded, 0 to 1: the rectified sigmoid."""
    return (torch.sigmoid(logits) * STRETCH - (STRETCH - 1) / 2).clamp(0, 1)


def _inverse_gate(up: Tensor) -> Tensor:
    return torch.logit((up + (STRETCH - 1) / 2) / STRETCH)
