"""Unstructured and 2:4 sparsity: single weights become zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from compress import prune
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model


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
    """Which weights go: the smallest; those with the smallest product of weight and input; or those that the
    remaining weights can best make up for. The last two read calibration data."""

    @model_validator(mode="after")
    def _half(self) -> Sparsify:
        if self.pattern == "2:4" and self.ratio != 0.5:
            raise ValueError(
                f"pattern 2:4 removes one half; a ratio of {self.ratio} needs pattern unstructured"
            )
        return self

    def apply(self, model: Model) -> list[Change]:
        """Zero weights in place."""
        return prune.sparsify(model, self.selects, ratio=self.ratio, pattern=self.pattern, solver=self.solver)
