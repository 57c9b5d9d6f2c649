"""What TPU v1 reached on its workloads (Jouppi et al., ISCA 2017, Tables 1 and 3), as matrix products."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper

WORKLOADS = {  # layers, millions of weights, batch, TOPS
    "MLP0": (5, 20, 200, 12.3),
    "MLP1": (4, 5, 168, 9.7),
    "LSTM0": (24, 52, 64, 3.7),
    "LSTM1": (37, 34, 96, 2.8),
}
"""The two convolutional networks are not given in enough detail to be built."""


def model(name: str) -> onnx.ModelProto:
    """Return the workload's matrix products on square int8 weights, one after another."""
    layers, millions, batch, _ = WORKLOADS[name]
    width = round(math.sqrt(millions * 1e6 / layers))
    nodes, weights, last = [], [], "x"
    for index in range(layers):
        weights.append(onnx.numpy_helper.from_array(np.ones((width, width), np.int8), f"w{index}"))
        nodes.append(helper.make_node("MatMulInteger", [last, f"w{index}"], [f"sums{index}"]))
        last = f"y{index}"
        nodes.append(helper.make_node("Cast", [f"sums{index}"], [last], to=TensorProto.INT8))
    x, y = (helper.make_tensor_value_info(value, TensorProto.INT8, [batch, width]) for value in ("x", last))
    graph = helper.make_graph(nodes, name, [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
