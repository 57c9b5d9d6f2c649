"""Weights of every kind of layer in eight bits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    import torch

    from compress.graph.layers import Layer
    from compress.model import Model
    from compress.numerics.affine import Quantized
    from compress.numerics.granularity import Granularity


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
        import onnx_ir as ir

        from compress.numerics.affine import quantize
        from compress.quantize.weight_only import store_weights

        def solve(
            layer: Layer, weight: torch.Tensor, granularity: Granularity, bits: int, signed: bool
        ) -> Quantized:
            known = (rounded or {}).get(layer.weight.name or "")
            if known is not None and signed and known.granularity == granularity:
                return known
            return quantize(weight, granularity, bits, signed=signed)

        def stored(graph: ir.Graph) -> list[Change]:
            return store_weights(
                graph,
                lambda layer: (
                    layer.weight.graph is graph
                    and not (graph is model.graph and layer.node.op_type in besides)
                    and self.selects(*layer.names)
                ),
                solve,
                bits=8,
                group_size=self.group_size,
                operators=self.operators,
            )

        graphs = (graph for graph in model.ir.graphs() if isinstance(graph, ir.Graph))
        return [change for graph in graphs for change in stored(graph)]
