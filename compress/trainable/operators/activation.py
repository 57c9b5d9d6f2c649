"""Activations, softmax, dropout and losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.table import Number, Weight, operator

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Tanh": torch.tanh,
}


def _register(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operator(name)
    def activation(x: Tensor) -> Tensor:
        return function(x)


for _name, _function in _PLAIN.items():
    _register(_name, _function)


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


@operator("Softmax", since=13)
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Softmax along one axis."""
    return torch.softmax(x, axis)


@operator("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Logarithm of the softmax along one axis."""
    return torch.log_softmax(x, axis)


@operator("Hardmax", since=13)
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """One at the first largest element along an axis, else zero."""
    index = _first_argmax(x, axis)
    return torch.zeros_like(x).scatter(axis, index, 1)


def _first_argmax(x: Tensor, axis: int) -> Tensor:
    largest = x == x.amax(axis, keepdim=True)
    return largest.to(torch.int8).argmax(axis, keepdim=True)


def _flattened(function: Callable[..., Tensor], x: Tensor, axis: int) -> Tensor:
    """Apply along all dimensions from `axis` on, as these operators were defined before opset 13."""
    flat = x.flatten(axis % max(x.dim(), 1)) if x.dim() else x
    return function(flat, axis=-1).reshape(x.shape)


@operator("Softmax")
def softmax_flattened(x: Tensor, *, axis: int = 1) -> Tensor:
    """Softmax over all dimensions from `axis` on (opset 12 and older)."""
    return _flattened(softmax, x, axis)


@operator("LogSoftmax")
def log_softmax_flattened(x: Tensor, *, axis: int = 1) -> Tensor:
    """Logarithm of `softmax_flattened`."""
    return _flattened(log_softmax, x, axis)


@operator("Hardmax")
def hardmax_flattened(x: Tensor, *, axis: int = 1) -> Tensor:
    """Hardmax over all dimensions from `axis` on (opset 12 and older)."""
    return _flattened(hardmax, x, axis)


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


@operator("Dropout")
def dropout_attribute(
    x: Tensor, *, ratio: float = 0.5, seed: int | None = None, training: bool = False
) -> tuple[Tensor, Tensor]:
    """Drop elements in training mode (opset 11 and older)."""
    return dropout(x, ratio, training=training)


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
