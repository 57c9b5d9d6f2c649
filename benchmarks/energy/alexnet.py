"""AlexNet's convolutions as Eyeriss ran them (JSSC 2017, Table V): batch 4, 16 bits, zeros as measured."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

LAYERS = {  # groups, outputs, inputs a group, output size, kernel, stride, padding
    "C1": (1, 96, 3, 55, 11, 4, 0),
    "C2": (2, 256, 48, 27, 5, 1, 2),
    "C3": (1, 384, 256, 13, 3, 1, 1),
    "C4": (2, 384, 192, 13, 3, 1, 1),
    "C5": (2, 256, 192, 13, 3, 1, 1),
}
INPUT_ZEROS = {"C1": 0.0001, "C2": 0.387, "C3": 0.725, "C4": 0.793, "C5": 0.776}
MEASURED_DRAM_MB = {"C1": 5.0, "C2": 4.0, "C3": 3.0, "C4": 2.1, "C5": 1.3}
MEASURED_MILLIWATTS = {"C1": 332, "C2": 288, "C3": 266, "C4": 235, "C5": 236}
MEASURED_MILLISECONDS = {"C1": 20.9, "C2": 41.9, "C3": 23.6, "C4": 18.4, "C5": 10.5}


def model(batch: int = 4) -> onnx.ModelProto:
    """Return one graph with the five convolutions side by side, float16 for the chip's 16-bit operands."""
    nodes, inputs, outputs, weights = [], [], [], []
    for name, (groups, m, c, size, kernel, stride, pad) in LAYERS.items():
        extent = (size - 1) * stride + kernel - 2 * pad
        node = helper.make_node(
            "Conv",
            [f"{name}.x", f"{name}.w"],
            [f"{name}.y"],
            name=name,
            group=groups,
            strides=[stride] * 2,
            pads=[pad] * 4,
        )
        nodes.append(node)
        shape = [batch, c * groups, extent, extent]
        inputs.append(helper.make_tensor_value_info(f"{name}.x", TensorProto.FLOAT16, shape))
        outputs.append(
            helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT16, [batch, m, size, size])
        )
        weights.append(onnx.numpy_helper.from_array(np.ones((m, c, kernel, kernel), np.float16), f"{name}.w"))
    graph = helper.make_graph(nodes, "alexnet", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def zeros() -> dict[str, float]:
    """Return the zeros of every input and output; a map's zeros are those the next layer reads."""
    after = [*list(INPUT_ZEROS.values())[1:], INPUT_ZEROS["C5"]]
    outputs = {f"{name}.y": fraction for name, fraction in zip(LAYERS, after, strict=True)}
    return outputs | {f"{name}.x": fraction for name, fraction in INPUT_ZEROS.items()}


def measured_joules(name: str) -> float:
    """Return the chip's energy for one layer and batch."""
    return MEASURED_MILLIWATTS[name] * MEASURED_MILLISECONDS[name] * 1e-6
