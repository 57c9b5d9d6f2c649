"""Unstructured and 2:4 sparsity: single weights become zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    import torch

    from compress.graph.layers import Layer
    from compress.model import Model
    from compress.numerics.gptq import Hessian


class Sparsify(Pass, name="sparsify"):
    """Set the least important weights of linear layers and convolutions to zero.

    Zeros save energy on hardware that skips them, and bytes once the weights are coded (see
    ``compress pack``); ONNX Runtime stores and multiplies them like any number, so neither the ONNX file
    nor the time shrinks. Up to half of the weights usually cost little. Depthwise and grouped
    convolutions stay dense.

    Example: ``sparsify: {ratio: 0.5, solver: sparsegpt}``
    """

    ratio: float = Field(default=0.5, gt=0, lt=1)
    """Fraction of each layer's weights that become zero."""
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """Anywhere, or two of every four input channels in a row, as NVIDIA's sparse tensor cores want."""
    solver: Literal["magnitude", "wanda", "sparsegpt"] = "wanda"
    """Smallest weights; smallest products of weight and input; or those that the rest can best make up for.
    The last two read calibration data."""

    @model_validator(mode="after")
    def _half(self) -> Sparsify:
        if self.pattern == "2:4" and self.ratio != 0.5:
            raise ValueError(
                f"pattern 2:4 removes one half; a ratio of {self.ratio} needs pattern unstructured"
            )
        return self

    def apply(self, model: Model) -> list[Change]:
        """Zero weights in place."""
        from compress.graph.linear import linear_layers
        from compress.graph.moments import second_moments

        chosen: list[Layer] = []
        changes = []
        for layer in linear_layers(model.graph):
            reason = self._reason_to_stay(layer)
            if reason:
                changes.append(Change(layer.name, skipped=reason))
            else:
                chosen.append(layer)
        moments = {} if self.solver == "magnitude" else second_moments(model.ir, model.batches(), chosen)
        return [*(self._sparsify(layer, moments.get(layer.name)) for layer in chosen), *changes]

    def _reason_to_stay(self, layer: Layer) -> str:
        channels = layer.array.shape[layer.in_axis or 0]
        if not self.selects(*layer.names):
            return "include and exclude leave it out"
        if layer.node.attributes.get_int("group", 1) != 1:
            return "a depthwise or grouped convolution has few weights, and all of them matter"
        if self.pattern == "2:4" and channels % 4:
            return f"its {channels} input channels do not divide into fours"
        return ""

    def _sparsify(self, layer: Layer, hessian: Hessian | None) -> Change:
        import torch

        from compress.graph.linear import from_matrix, matrix, store

        before = torch.from_numpy(np.array(matrix(layer, layer.array)[0]))
        with torch.no_grad():
            after = self._solve(before, None if hessian is None else hessian.matrix())
        store(layer.weight, from_matrix(layer, after.numpy()[None]))
        size = before.numel() * before.element_size()
        zeros = float((after == 0).float().mean())
        error = float((after - before).norm() / before.norm().clamp(min=1e-30))
        return Change(layer.name, f"{zeros:.0%} of the weights are zero", size, size, error)

    def _solve(self, weight: torch.Tensor, hessian: torch.Tensor | None) -> torch.Tensor:
        from compress.numerics.sparsity import keep_largest, sparsegpt, wanda

        group = 4 if self.pattern == "2:4" else None
        if hessian is None:
            return weight * keep_largest(weight.abs(), self.ratio, group)
        if self.solver == "wanda":
            return weight * keep_largest(wanda(weight, hessian.diagonal()), self.ratio, group)
        return sparsegpt(weight, hessian, self.ratio, group)
