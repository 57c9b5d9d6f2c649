"""A plan for every layer: channels, bits and integer arithmetic, made into a file in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from compress import quantize
from compress.changes import Change
from compress.errors import PassError
from compress.passes.base import Pass

if TYPE_CHECKING:
    from compress.model import Model

PACKED = 4
"""Most bits that are stored in 4, which operator set 21 can say."""


class PerLayer(Pass, name="per-layer"):
    """Give each layer its own bits, each coupling group its own share of channels, in one go.

    Channels are removed first, of all groups at once, and the layers that read fewer are refitted. The graph
    is folded. GPTQ rounds the weights of linear layers and convolutions, with one scale a channel. Layers
    with fewer rows of calibration data than features, recurrent layers, embeddings, and all layers without
    data are rounded to the nearest, at the bits that were asked for. Ranges of activations come from
    calibration data, chosen as `int8-static` does for the whole network.

    Weights of 4 bits and fewer are stored in 4. ONNX Runtime has no kernel that multiplies them with
    integers: it computes such a layer in float, between integers, and the record says so. Accelerators that
    decode 4 bits multiply integers. 8-bit weights beside integers saturate on x86 without VNNI; 7 do not. A
    layer that cannot become what is asked is an error.

    Example: ``per-layer: {channels: {conv1: 0.75}, weights: {conv1: 4, head: 16}, activations: [conv1]}``
    """

    quantizes: ClassVar[bool] = True
    needs_float32: ClassVar[bool] = True

    channels: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default={})
    """Share of its channels that a coupling group keeps, rounded up, by the group's name. That is the name of
    the first layer that makes the channels; where several groups have it, their kind stands behind it, as in
    ``query (heads)`` and ``query (head-width)``."""
    weights: dict[str, Literal[2, 3, 4, 5, 6, 7, 8, 16]] = Field(default={})
    """Bits of a layer's weights by its name, or by the name of one weight: 2 to 8 for integers, 16 for
    float16, biases included. Layers that are not named stay as they are."""
    activations: tuple[str, ...] = ()
    """Layers that multiply integers: their inputs and results are 8-bit codes in ranges from calibration.
    Each needs integer weights."""
    repair: bool = True
    """Whether the layers that read fewer channels are refitted to their former outputs, by least squares on
    calibration data."""
    importance: Literal["auto", "magnitude", "activation", "batch-norm", "taylor", "fisher", "random"] = (
        "auto"
    )
    """How important channels are told, as in `prune-channels`."""

    def least_opset(self) -> int:
        """Return the operator set that has the types of the weights."""
        return 21 if any(bits <= PACKED for bits in self.weights.values()) else 13

    def leaves_float(self) -> bool:
        """Tell whether channels alone are pruned, so that a pass that trains or quantizes may follow."""
        return not self.weights

    def apply(self, model: Model) -> list[Change]:
        """Make the file that the plan says."""
        if not (self.channels or self.weights):
            raise PassError("the plan is empty: name coupling groups in channels, or layers in weights")
        for name in (*self.channels, *self.weights, *self.activations):
            if not self.selects(name):
                raise PassError(f"{name!r} is in the plan, and left out by include or exclude")
        ground = quantize.Groundwork(model, self.importance, repairs=self.repair)
        result, changes = ground.take(self.channels, self.weights, self.activations)
        model.ir = result.ir
        return changes
