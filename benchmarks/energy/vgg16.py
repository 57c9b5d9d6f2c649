"""VGG-16's convolutions on Eyeriss (JSSC 2017, Table VI), batch 3; the zeros of 1-1 are recalled."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper

LAYERS = {  # inputs, outputs, map size, zeros of the input, mW, total ms, DRAM MB
    "1-1": (3, 64, 224, 0.016, 247, 76.2, 15.4),
    "1-2": (64, 64, 224, 0.477, 218, 910.3, 54.0),
    "2-1": (64, 128, 112, 0.248, 242, 470.3, 33.4),
    "2-2": (128, 128, 112, 0.387, 231, 894.3, 48.5),
    "3-1": (128, 256, 56, 0.397, 254, 241.1, 20.2),
    "3-2": (256, 256, 56, 0.581, 235, 460.9, 32.2),
    "3-3": (256, 256, 56, 0.587, 233, 457.7, 30.8),
    "4-1": (256, 512, 28, 0.643, 278, 135.8, 17.8),
    "4-2": (512, 512, 28, 0.747, 261, 254.8, 28.6),
    "4-3": (512, 512, 28, 0.854, 240, 246.3, 22.8),
    "5-1": (512, 512, 14, 0.794, 258, 54.3, 6.3),
    "5-2": (512, 512, 14, 0.874, 236, 53.7, 5.7),
    "5-3": (512, 512, 14, 0.885, 230, 53.7, 5.6),
}
SHAPES = {"x": (3, 3, 224, 224)}
MEASURED_SECONDS = {name: row[5] * 1e-3 for name, row in LAYERS.items()}
MEASURED_JOULES = {name: row[4] * row[5] * 1e-6 for name, row in LAYERS.items()}
MEASURED_DRAM_MB = {name: row[6] for name, row in LAYERS.items()}


def model() -> onnx.ModelProto:
    """Return the convolutions with their ReLUs and poolings, in float16."""
    nodes, weights, last = [], [], "x"
    for name, (inputs, outputs, *_) in LAYERS.items():
        if name.endswith("-1") and name != "1-1":
            nodes.append(
                helper.make_node(
                    "MaxPool", [last], [f"{name}.x"], name=f"{name}.pool", kernel_shape=[2, 2], strides=[2, 2]
                )
            )
            last = f"{name}.x"
        weight = np.ones((outputs, inputs, 3, 3), np.float16)
        weights.append(onnx.numpy_helper.from_array(weight, f"{name}.w"))
        nodes.append(helper.make_node("Conv", [last, f"{name}.w"], [f"{name}.y"], name=name, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"{name}.y"], [f"{name}.relu"]))
        last = f"{name}.relu"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 3, "height", "width"])
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT16, None)
    graph = helper.make_graph(nodes, "vgg16", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def zeros() -> dict[str, float]:
    """Return the zeros of what each convolution reads; the last one's output has those of its input."""
    found = {"x": LAYERS["1-1"][3], "5-3.relu": LAYERS["5-3"][3]}
    names = list(LAYERS)
    for before, name in itertools.pairwise(names):
        found[f"{name}.x" if name.endswith("-1") else f"{before}.relu"] = LAYERS[name][3]
    return found
