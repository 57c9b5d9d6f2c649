"""AlexNet's convolutional part as Eyeriss ran it (JSSC 2017, Table V): batch 4, zeros as measured."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

LAYERS = {  # groups, outputs, inputs a group, kernel, stride, padding
    "C1": (1, 96, 3, 11, 4, 0),
    "C2": (2, 256, 48, 5, 1, 2),
    "C3": (1, 384, 256, 3, 1, 1),
    "C4": (2, 384, 192, 3, 1, 1),
    "C5": (2, 256, 192, 3, 1, 1),
}
INPUTS = {"C1": "x", "C2": "C1.pool", "C3": "C2.pool", "C4": "C3.relu", "C5": "C4.relu"}
"""The value that each convolution reads."""
INPUT_ZEROS = {"C1": 0.0001, "C2": 0.387, "C3": 0.725, "C4": 0.793, "C5": 0.776}
MEASURED_DRAM_MB = {"C1": 5.0, "C2": 4.0, "C3": 3.0, "C4": 2.1, "C5": 1.3}
MEASURED_MILLIWATTS = {"C1": 332, "C2": 288, "C3": 266, "C4": 235, "C5": 236}
MEASURED_MILLISECONDS = {"C1": 20.9, "C2": 41.9, "C3": 23.6, "C4": 18.4, "C5": 10.5}
SHAPES = {"x": (4, 3, 227, 227)}


def model() -> onnx.ModelProto:
    """Return the graph, in float16 for the chip's 16-bit operands; batch and image size are left open."""
    nodes, weights, last = [], [], "x"
    for name, (groups, outputs, inputs, kernel, stride, padding) in LAYERS.items():
        shape = (outputs, inputs, kernel, kernel)
        weights.append(onnx.numpy_helper.from_array(np.ones(shape, np.float16), f"{name}.w"))
        weights.append(onnx.numpy_helper.from_array(np.ones(outputs, np.float16), f"{name}.b"))
        convolution = helper.make_node(
            "Conv",
            [last, f"{name}.w", f"{name}.b"],
            [f"{name}.conv"],
            name=name,
            group=groups,
            strides=[stride] * 2,
            pads=[padding] * 4,
        )
        nodes += [convolution, helper.make_node("Relu", [f"{name}.conv"], [f"{name}.relu"])]
        last = f"{name}.relu"
        if name in ("C1", "C2"):
            nodes.append(helper.make_node("LRN", [last], [f"{name}.norm"], size=5))
            last = f"{name}.norm"
        if name in ("C1", "C2", "C5"):
            nodes.append(
                helper.make_node("MaxPool", [last], [f"{name}.pool"], kernel_shape=[3, 3], strides=[2, 2])
            )
            last = f"{name}.pool"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 3, "height", "width"])
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT16, None)
    graph = helper.make_graph(nodes, "alexnet", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def zeros() -> dict[str, float]:
    """Return the zeros of what the convolutions read; of the last one's output, those of its input."""
    return {INPUTS[name]: fraction for name, fraction in INPUT_ZEROS.items()} | {"C5.pool": INPUT_ZEROS["C5"]}


def measured_joules(name: str) -> float:
    """Return the chip's energy for one layer and batch."""
    return MEASURED_MILLIWATTS[name] * MEASURED_MILLISECONDS[name] * 1e-6
