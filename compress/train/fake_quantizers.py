"""Fake quantizers in a graph: nodes that round values as the stored integers will, with gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compress.graph import edit
from compress.numerics.affine import Quantized
from compress.numerics.granularity import Granularity, PerAxis, PerGroup, PerTensor
from compress.trainable.operators.table import TRAINING


@dataclass(frozen=True, slots=True, eq=False)
class FakeQuantizer:
    """How one value is rounded.

    Attributes:
        owner: name of the value that owns the scales; values that an operator only moves share them.
        scale: float32, in the shape that `granularity` gives.
        low: lowest step, counted from the zero point.
        high: highest step.
        granularity: which elements share a scale.
    """

    owner: str
    scale: Tensor
    low: int
    high: int
    granularity: Granularity = field(default_factory=PerTensor)

    @classmethod
    def of(cls, name: str, quantized: Quantized) -> FakeQuantizer:
        """Return the fake quantizer that rounds a weight as the symmetric `quantized` does."""
        (low, high), middle = quantized.format.limits, quantized.format.middle
        # A negative scale only says which end of the range is the longer one.
        return cls(name, quantized.scale.abs(), low - middle, high - middle, quantized.granularity)


def scale_name(quantizer: FakeQuantizer) -> str:
    """Return the name of the initializer that holds the scales, as logarithms in one row."""
    return f"{quantizer.owner}.log_scale"


def insert(
    graph: ir.Graph,
    value: ir.Value,
    readers: Iterable[tuple[ir.Node, int]],
    quantizer: FakeQuantizer,
) -> None:
    """Put a fake quantizer between `value` and `readers` (node, input index).

    Args:
        graph: the graph that `value` is in.
        value: what is rounded: an activation or a weight.
        readers: the nodes, with their input indices, that read the rounded value.
        quantizer: range, granularity and initial scales.
    """
    name = scale_name(quantizer)
    scales = graph.initializers.get(name)
    if scales is None:
        logarithms = torch.log(quantizer.scale).reshape(-1).numpy()
        scales = edit.add_initializer(graph, name, logarithms.astype(np.float32))
    attributes = {"low": quantizer.low, "high": quantizer.high}
    if isinstance(quantizer.granularity, PerAxis | PerGroup):
        attributes["axis"] = quantizer.granularity.axis
    if isinstance(quantizer.granularity, PerGroup):
        attributes["block_size"] = quantizer.granularity.size
    node = ir.node(
        "FakeQuantize", [value, scales], attributes, domain=TRAINING, name=f"{value.name}.fake_quantize"
    )
    node.outputs[0].name = f"{value.name}.rounded"
    edit.insert_after(value, node)
    for reader, index in list(readers):
        edit.set_input(reader, index, node.outputs[0])


def scales(graph: ir.Graph, quantizer: FakeQuantizer) -> Tensor:
    """Return the current scales of a fake quantizer in the graph, in the shape of its initial ones."""
    tensor = graph.initializers[scale_name(quantizer)].const_value
    if tensor is None:
        raise ValueError(f"{quantizer.owner!r} has no scales")
    return torch.from_numpy(np.array(tensor.numpy())).exp().reshape(quantizer.scale.shape)
