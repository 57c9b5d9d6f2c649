"""One layer of BERT-large on many samples, as a float16 graph or with int8 Q/DQ on its products."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH, HEADS, INNER, TOKENS, SAMPLES = 1024, 16, 4096, 180, 64


class _Builder:
    def __init__(self, kind: str) -> None:
        self.int8 = kind == "int8"
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [
            helper.make_tensor("s", TensorProto.FLOAT16, [], [0.1]),
            helper.make_tensor("z", TensorProto.INT8, [], [0]),
        ]

    def add(self, op_type: str, inputs: list[str], **attributes: object) -> str:
        name = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        self.weights.append(onnx.numpy_helper.from_array(array, name))
        return name

    def quantized(self, name: str) -> str:
        if not self.int8:
            return name
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [name, "s", "z"]), "s", "z"])

    def product(self, left: str, right: str) -> str:
        return self.add("MatMul", [self.quantized(left), self.quantized(right)])

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        name = f"w{len(self.nodes)}"
        if not self.int8:
            return self.add("MatMul", [x, self.constant(name, np.ones((inputs, outputs), np.float16))])
        codes = self.constant(name, np.ones((inputs, outputs), np.int8))
        weight = self.add("DequantizeLinear", [codes, "s", "z"])
        return self.add("MatMul", [self.quantized(x), weight])

    def heads(self, x: str) -> str:
        shape = self.constant(
            f"shape{len(self.nodes)}", np.array([SAMPLES, TOKENS, HEADS, WIDTH // HEADS], np.int64)
        )
        return self.add("Transpose", [self.add("Reshape", [x, shape])], perm=[0, 2, 1, 3])

    def norm(self, x: str, residual: str) -> str:
        scale = self.constant(f"scale{len(self.nodes)}", np.ones(WIDTH, np.float16))
        return self.add("LayerNormalization", [self.add("Add", [x, residual]), scale])


def bert_layer(kind: str) -> onnx.ModelProto:
    """Return the layer; `kind` is ``float16`` or ``int8``."""
    net = _Builder(kind)
    q, k, v = (net.heads(net.linear("x", WIDTH, WIDTH)) for _ in range(3))
    scores = net.product(q, net.add("Transpose", [k], perm=[0, 1, 3, 2]))
    mixed = net.add("Transpose", [net.product(net.add("Softmax", [scores]), v)], perm=[0, 2, 1, 3])
    flat = net.add("Reshape", [mixed, net.constant("flat", np.array([SAMPLES, TOKENS, WIDTH], np.int64))])
    attended = net.norm(net.linear(flat, WIDTH, WIDTH), "x")
    inner = net.add("Gelu", [net.linear(attended, WIDTH, INNER)])
    y = net.norm(net.linear(inner, INNER, WIDTH), attended)
    shape = [SAMPLES, TOKENS, WIDTH]
    graph = helper.make_graph(
        net.nodes,
        "bert_layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, shape)],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT16, shape)],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
