"""Unstructured and 2:4 sparsity: individual weights become zero."""

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
    ``compress pack``). ONNX Runtime stores and multiplies zeros like any number, so that neither the ONNX
    file nor the time of a run shrinks. Removing up to half of the weights usually costs little accuracy.
    Depthwise and grouped convolutions stay dense.

    Example: ``sparsify: {ratio: 0.5, solver: sparsegpt}``
    """

    ratio: float = Field(default=0.5, gt=0, lt=1)
    """Fraction of each layer's weights that become zero."""
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """Where zeros may be: anywhere, or two of every four consecutive input channels, as NVIDIA's sparse
    tensor cores require."""
    solver: Literal["magnitude", "wanda", "sparsegpt"] = "wanda"
    """Which weights become zero: the smallest (magnitude); those with the smallest product of weight and
    input (wanda); or those for which the other weights can best compensate (sparsegpt). wanda and sparsegpt
    read calibration data."""

    @model_validator(mode="after")
    def _half(self) -> Sparsify:
        if self.pattern == "2:4" and self.ratio != 0.5:
            raise ValueError(
                f"pattern 2:4 sets one half to zero; a ratio of {self.ratio} needs pattern: unstructured"
            )
        return self

    def apply(self, model: Model) -> list[Change]:
        """Zero weights in place."""
        return prune.sparsify(model, self.selects, **self.own())
