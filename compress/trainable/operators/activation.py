"""Activations, softmax, dropout and losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.reduction import arg_max
from compress.trainable.operators.table import Number, Weight, operator


def _register(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operator(name)
    def activation(x: Tensor) -> Tensor:
        return function(x)


_register("HardSwish", F.hardswish)
_register("Mish", F.mish)
_register("Relu", torch.relu)
_register("Sigmoid", torch.sigmoid)
_register("Softplus", F.softplus)
_register("Softsign", F.softsign)
_register("Tanh", torch.tanh)


@operator("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """``max(0, x) + min(0, alpha (exp(x / alpha) - 1))``."""
    return F.celu(x, alpha)


@operator("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """`x` above zero, ``alpha (exp(x) - 1)`` below."""
    return F.elu(x, alpha)


@operator("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """``x Phi(x)``, with the normal distribution exact or by tanh."""
    return F.gelu(x, approximate=approximate)


@operator("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """``alpha x + beta``, limited to [0, 1]."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


@operator("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """`x` above zero, ``alpha x`` below."""
    return F.leaky_relu(x, alpha)


@operator("PRelu")
def parametric_relu(x: Tensor, slope: Weight) -> Tensor:
    """`x` above zero, ``slope x`` below."""
    return torch.where(x < 0, slope * x, x)


@operator("Selu")
def selu(
    x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Tensor:
    """``gamma`` times Elu."""
    return gamma * F.elu(x, alpha)


@operator("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """Nothing within ``±lambd``; outside, `x` moved towards zero by `bias`."""
    moved = torch.where(x > lambd, x - bias, torch.zeros_like(x))
    return torch.where(x < -lambd, x + bias, moved)


@operator("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """``x sigmoid(alpha x)``."""
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@operator("SwiGLU")
def swiglu(gate: Tensor, value: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Swish of the gate times the value."""
    return swish(gate, alpha=alpha) * value


@operator("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """`x` above `alpha`, else zero."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


_NAMED: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "affine": (lambda x, alpha, beta: alpha * x + beta, (1.0, 0.0)),
    "clip": (torch.clamp, (-math.inf, math.inf)),
    "elu": (F.elu, (1.0,)),
    "hardsigmoid": (lambda x, alpha, beta: hard_sigmoid(x, alpha=alpha, beta=beta), (0.2, 0.5)),
    "leakyrelu": (F.leaky_relu, (0.01,)),
    "relu": (torch.relu, ()),
    "scaledtanh": (lambda x, alpha, beta: alpha * torch.tanh(beta * x), (1.0, 1.0)),
    "sigmoid": (torch.sigmoid, ()),
    "softplus": (F.softplus, ()),
    "softsign": (F.softsign, ()),
    "tanh": (torch.tanh, ()),
    "thresholdedrelu": (lambda x, alpha: thresholded_relu(x, alpha=alpha), (1.0,)),
}


def named_activation(name: str) -> tuple[Callable[..., Tensor], tuple[float, ...]]:
    """Return the activation that an attribute names, and the default of each number that it takes.

    Raises:
        NotImplementedError: there is no function for it.
    """
    found = _NAMED.get(name.lower())
    if found is None:
        raise NotImplementedError(f"activation {name!r} is not supported")
    return found


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """One at the first largest element along an axis, else zero."""
    return torch.zeros_like(x).scatter(axis, arg_max(x, axis=axis), 1)


def _register_along_axis(name: str, function: Callable[[Tensor, int], Tensor]) -> None:
    @operator(name, since=13)
    def along_axis(x: Tensor, *, axis: int = -1) -> Tensor:
        return function(x, axis)

    @operator(name)
    def from_axis_on(x: Tensor, *, axis: int = 1) -> Tensor:
        # Up to opset 12, all dimensions from `axis` on count as one.
        flat = x.flatten(axis % max(x.dim(), 1)) if x.dim() else x
        return function(flat, -1).reshape(x.shape)


_register_along_axis("Hardmax", _hardmax)
_register_along_axis("LogSoftmax", torch.log_softmax)
_register_along_axis("Softmax", torch.softmax)


@operator("Dropout", attributes=["ratio"])
@operator("Dropout", since=12)
def dropout(
    x: Tensor,
    ratio: Number = 0.5,
    training_mode: Number = False,
    *,
    seed: int | None = None,
    training: bool = False,
) -> tuple[Tensor, Tensor]:
    """Drop elements if the node or the module is in training mode; torch's generator decides which."""
    if not (training or training_mode) or ratio == 0.0:
        return x, torch.ones_like(x, dtype=torch.bool)
    mask = torch.rand_like(x) >= ratio
    return x * mask / (1.0 - ratio), mask


_NO_INDEX = -100
"""What torch takes for "ignore nothing"; no class has this number."""


@operator("NegativeLogLikelihoodLoss")
def nll_loss(
    log_probabilities: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = _NO_INDEX,
    reduction: str = "mean",
) -> Tensor:
    """Negative log likelihood of the target classes; dimension 1 holds the classes."""
    return F.nll_loss(
        log_probabilities, target.long(), weight, ignore_index=ignore_index, reduction=reduction
    )


@operator("SoftmaxCrossEntropyLoss")
def cross_entropy_loss(
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = _NO_INDEX,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the labels, and the log probabilities."""
    logs = torch.log_softmax(scores, 1)
    return nll_loss(logs, labels, weight, ignore_index=ignore_index, reduction=reduction), logs
