"""How much an error of each weight changes the outputs, estimated from gradients."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compress.trainable.module import Trainable

if TYPE_CHECKING:
    from compress.model import Model

PROBES = 6
"""Random directions of the outputs that are back-propagated."""


def curvature(model: Model, names: Collection[str]) -> dict[str, Tensor]:
    """Return the diagonal of the Gauss-Newton matrix of the outputs' relative error, by initializer.

    An error e of one weight adds ``curvature * e²`` to the noise-to-signal ratio, summed over the outputs. It
    is estimated as the mean square of the gradients of the outputs times random signs (Hutchinson, 1990).
    Every output element has its own sign, so that the samples of a batch do not mix.

    Args:
        model: a model with calibration data; float outputs count.
        names: names of initializers.

    Raises:
        DataError: there are no calibration data.
        ModelError: a node cannot run in torch.
    """
    module = Trainable(model.ir, trained=names).eval()
    weights = module.trained_weights()
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(0)
    batches = list(itertools.islice(model.batches(), PROBES))
    for feeds in itertools.islice(itertools.cycle(batches), PROBES if weights else 0):
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
        outputs = [output for output in module(tensors) if output.requires_grad]
        directions = [_direction(output, generator) for output in outputs]
        gradients = torch.autograd.grad(
            outputs, list(weights.values()), directions, allow_unused=True, materialize_grads=True
        )
        for name, gradient in zip(weights, gradients, strict=True):
            total[name] += gradient.square()
    return {name: each / PROBES for name, each in total.items()}


def _direction(output: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, output.shape, generator=generator).to(output.dtype) * 2 - 1
    scaled: Tensor = signs / output.detach().norm().clamp(min=1e-12)
    return scaled
