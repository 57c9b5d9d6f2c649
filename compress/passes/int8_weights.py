"""Weights of every kind of layer in eight bits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from compress import quantize
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model
    from compress.numerics.affine import Quantized


class Int8Weights(Pass, name="int8-weights"):
    """Store weights as 8-bit integers; activations stay float.

    Files shrink nearly 4 times at almost no loss on any network, without calibration data. Linear
    layers and embeddings run in the runtime's own 8-bit kernels; the weights of convolutions and
    recurrent layers become float as the model is loaded, so that only the file gets smaller there:
    see `int8-static`.

    Example: ``int8-weights: {exclude: ["*embeddings*"]}``
    """

    quantizes: ClassVar[bool] = True

    group_size: Literal[16, 32, 64, 128, 256] = 128
    """Largest number of weights that share a scale in the runtime's kernels."""
    operators: Literal["onnxruntime", "expanded", "standard"] = "onnxruntime"
    """Integer kernels of ONNX Runtime where it has them; weights that become float as the model is loaded,
    at float's speed; or DequantizeLinear of the standard."""

    def apply(self, model: Model) -> list[Change]:
        """Store every selected weight in 8 bits."""
        return self.store(model)

    def store(
        self, model: Model, besides: Collection[str] = (), rounded: Mapping[str, Quantized] | None = None
    ) -> list[Change]:
        """Do the same in place.

        Args:
            model: the model.
            besides: operators whose weights stay as they are, outside of the bodies of If, Loop and Scan.
            rounded: integers of weights by name, for weights stored with one scale a channel; others
                are rounded to the nearest.
        """
        return quantize.store_int8_weights(
            model,
            self.selects,
            group_size=self.group_size,
            operators=self.operators,
            besides=besides,
            rounded=rounded,
        )
