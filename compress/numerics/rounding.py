"""AdaRound: learn for every weight whether to round it up or down, for one weight or for several at once.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from compress.numerics.affine import Quantized, require_finite

T = TypeVar("T")
PULL = 0.8
"""How far a gate begins towards the start's integer, from where the weight lies between its neighbours."""
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
    for tensor in (inputs, targets):
        require_finite(tensor)

    def loss(weights: Mapping[str, Tensor], rows: Tensor | slice) -> Tensor:
        return (forward(inputs[rows], weights[""]) - targets[rows]).square().mean()

    with torch.no_grad():
        start = float(loss({"": quantized.dequantize()}, slice(None)))
    if start == 0:
        return quantized
    draws = _draws(len(inputs), steps, seed)
    learned = learn_together(
        {"": weight}, {"": quantized}, lambda codes, rows: loss(codes, rows) / start, draws, steps
    )[""]
    with torch.no_grad():
        better = float(loss({"": learned.dequantize()}, slice(None))) < start
    return learned if better else quantized


def learn_together(
    weights: Mapping[str, Tensor],
    start: Mapping[str, Quantized],
    error: Callable[[Mapping[str, Tensor], T], Tensor],
    draws: Iterable[T],
    steps: int,
) -> dict[str, Quantized]:
    """Return the integers of several weights, each rounded up or down for the least error of all together.

    Args:
        weights: the weights before quantization, by name.
        start: what `quantize` made of them; scales and zero points stay.
        error: the error of one draw for weights by name, relative to the error that the start has.
        draws: what each step sees.
        steps: how many draws there are.

    Raises:
        ValueError: a weight is not finite.
    """
    gates = {name: _Gates(weight, start[name]) for name, weight in weights.items()}
    optimizer = torch.optim.Adam([each.logits for each in gates.values()], lr=RATE)
    count = sum(weight.numel() for weight in weights.values())
    for step, draw in enumerate(draws):
        up = {name: each.up() for name, each in gates.items()}
        objective = error({name: each.weight(up[name]) for name, each in gates.items()}, draw)
        progress = (step / steps - WARMUP) / (1 - WARMUP)
        if progress > 0:
            undecided = torch.stack([_indecision(each, progress) for each in up.values()]).sum()
            objective = objective + REGULARIZATION * undecided / count
        optimizer.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: each.decided() for name, each in gates.items()}


class _Gates:
    """How far up each element of a weight is rounded, 0 to 1, as it is learnt.

    The start's integer is one of the two that a gate chooses from, so that learning goes on from there; the
    weight lies between the two if it may, since GPTQ sometimes rounds further.

    Raises:
        ValueError: the weight is not finite.
    """

    def __init__(self, weight: Tensor, start: Quantized) -> None:
        require_finite(weight)
        shape, self._start = tuple(weight.shape), start
        self._scale = start.granularity.expand(start.scale, shape)
        self._zero_point = start.granularity.expand(start.zero_point.float(), shape)
        exact, codes = weight.float() / self._scale + self._zero_point, start.values.float()
        self._floor = torch.minimum(torch.maximum(exact.floor(), codes - 1), codes)
        between = (exact - self._floor).clamp(0, 1)
        first = torch.lerp(between, codes - self._floor, PULL).clamp(0.01, 0.99)
        self.logits = torch.logit((first + (STRETCH - 1) / 2) / STRETCH).requires_grad_()

    def up(self) -> Tensor:
        """Return the gates: the rectified sigmoid of the logits."""
        return (torch.sigmoid(self.logits) * STRETCH - (STRETCH - 1) / 2).clamp(0, 1)

    def weight(self, up: Tensor) -> Tensor:
        """Return the weight that is rounded up so far."""
        return (self._codes(up) - self._zero_point) * self._scale

    def decided(self) -> Quantized:
        """Return the integers, with every gate open or closed."""
        with torch.no_grad():
            codes = self._codes((self.up() >= 0.5).float())
        return replace(self._start, values=codes.to(self._start.values.dtype))

    def _codes(self, up: Tensor) -> Tensor:
        return (self._floor + up).clamp(*self._start.format.limits)


def _draws(samples: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield the samples of each step."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(samples, (min(BATCH, samples),), generator=generator) for _ in range(steps))


def _indecision(up: Tensor, progress: float) -> Tensor:
    """Return the regularizer: how far the gates are from 0 and 1 in sum (eq. 24)."""
    beta = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * progress
    return (1 - (2 * up - 1).abs().pow(beta)).sum()
