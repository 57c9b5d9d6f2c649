"""The four networks of MLPerf Tiny in int8 with Q/DQ, and what boards took for them (result files)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

MEASURED: dict[str, dict[str, tuple[float, float]]] = {
    "stm32l4r5": {"ic": (7019, 4.98), "kws": (2833, 15.9), "vww": (5618, 8.41), "ad": (293.9, 145.7)},
    "stm32u575": {"ic": (3384, 7.86), "kws": (1004, 26.1), "vww": (1921, 14.1), "ad": (121.4, 207.2)},
    "gap9 0.65 V": {
        "ic": (27.711, 1043.8),
        "kws": (18.561, 1368.2),
        "vww": (40.801, 578.0),
        "ad": (5.252, 3683),
    },
    "gap9 0.8 V": {
        "ic": (40.356, 1608.0),
        "kws": (26.659, 2107.9),
        "vww": (58.356, 890.6),
        "ad": (7.294, 5681),
    },
    "ndp9120 0.9 V": {"ic": (101.833, 62.27), "kws": (31.537, 227.2), "vww": (71.711, 78.09)},
}
"""Microjoules an inference, and inferences a second, by network."""
OTHERS: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "stm32l4r5, Krai": (
        "stm32l4r5",
        {"ic": (17315, 4.50), "kws": (5482, 13.7), "vww": (16573, 4.52), "ad": (528.9, 131.9)},
    ),
    "xG24": (
        "stm32u575",
        {"ic": (1234.7, 8.27), "kws": (401.9, 27.5), "vww": (1139.2, 8.97), "ad": (47.3, 184.3)},
    ),
}
"""Boards without a profile of their own, and the one that a fit starts from."""
RECALLED: dict[str, dict[str, tuple[float, float]]] = {
    "ndp9120 1.1 V": {"ic": (139.4, 1 / 5.12e-3), "kws": (43.8, 1 / 1.48e-3), "vww": (97.2, 1 / 4.10e-3)},
}
"""The same, from memory of the v1.0 result files; not read again."""


class _Builder:
    """Builds a chain of layers, every tensor through QuantizeLinear and DequantizeLinear."""

    def __init__(self, shape: list[int]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [
            helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("z", TensorProto.INT8, [], [0]),
        ]
        self.input = helper.make_tensor_value_info("x", TensorProto.INT8, shape)
        self.shape = shape
        self.last = "x.d"
        self.nodes.append(helper.make_node("DequantizeLinear", ["x", "s", "z"], ["x.d"]))

    def _weight(self, name: str, shape: list[int]) -> str:
        self.weights.append(helper.make_tensor(name, TensorProto.INT8, shape, np.ones(shape, np.int8)))
        self.nodes.append(helper.make_node("DequantizeLinear", [name, "s", "z"], [f"{name}.d"]))
        return f"{name}.d"

    def _quantized(self, name: str) -> str:
        self.nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}.q"]))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", "s", "z"], [f"{name}.d"]))
        return f"{name}.d"

    def _add(self, op_type: str, inputs: list[str], **attributes: object) -> str:
        name = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self,
        channels: int,
        kernel: tuple[int, int],
        stride: int = 1,
        depthwise: bool = False,
        relu: bool = True,
    ) -> _Builder:
        n, c, h, w = self.shape
        groups = c if depthwise else 1
        weight = self._weight(f"w{len(self.nodes)}", [channels, c // groups, *kernel])
        name = self._add(
            "Conv",
            [self.last, weight],
            kernel_shape=kernel,
            strides=[stride] * 2,
            group=groups,
            auto_pad="SAME_UPPER",
        )
        if relu:
            name = self._add("Relu", [name])
        self.last = self._quantized(name)
        self.shape = [n, channels, -(-h // stride), -(-w // stride)]
        return self

    def residual(self, other: str) -> _Builder:
        self.last = self._quantized(self._add("Relu", [self._add("Add", [self.last, other])]))
        return self

    def pool(self) -> _Builder:
        self.last = self._quantized(self._add("GlobalAveragePool", [self.last]))
        self.nodes.append(helper.make_node("Flatten", [self.last], [f"{self.last}.f"]))
        self.last = f"{self.last}.f"
        self.shape = self.shape[:2]
        return self

    def dense(self, outputs: int, relu: bool = False) -> _Builder:
        weight = self._weight(f"w{len(self.nodes)}", [self.shape[-1], outputs])
        name = self._add("MatMul", [self.last, weight])
        if relu:
            name = self._add("Relu", [name])
        self.last = self._quantized(name)
        self.shape = [self.shape[0], outputs]
        return self

    def model(self, name: str) -> onnx.ModelProto:
        output = helper.make_tensor_value_info(
            self.last.removesuffix(".d") + ".q", TensorProto.INT8, self.shape
        )
        self.nodes.pop()
        graph = helper.make_graph(self.nodes, name, [self.input], [output], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def image_classification() -> onnx.ModelProto:
    """ResNet-8 on 32 x 32 images, 12.5 M multiply-accumulates."""
    net = _Builder([1, 3, 32, 32]).conv(16, (3, 3))
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        before, shape = net.last, net.shape
        net.conv(channels, (3, 3), stride).conv(channels, (3, 3), relu=False)
        main, after = net.last, net.shape
        if stride > 1:
            net.last, net.shape = before, shape
            net.conv(channels, (1, 1), stride, relu=False)
            before = net.last
        net.last, net.shape = main, after
        net.residual(before)
    return net.pool().dense(10).model("resnet8")


def keyword_spotting() -> onnx.ModelProto:
    """DS-CNN on 49 x 10 features, 2.66 M multiply-accumulates."""
    net = _Builder([1, 1, 49, 10]).conv(64, (10, 4), 2)
    for _ in range(4):
        net.conv(64, (3, 3), depthwise=True).conv(64, (1, 1))
    return net.pool().dense(12).model("ds_cnn")


def visual_wake_words() -> onnx.ModelProto:
    """MobileNetV1 of width 0.25 on 96 x 96 images, 7.49 M multiply-accumulates."""
    net = _Builder([1, 3, 96, 96]).conv(8, (3, 3), 2)
    for channels, stride in (
        (16, 1),
        (32, 2),
        (32, 1),
        (64, 2),
        (64, 1),
        (128, 2),
        *[(128, 1)] * 5,
        (256, 2),
        (256, 1),
    ):
        net.conv(net.shape[1], (3, 3), stride, depthwise=True).conv(channels, (1, 1))
    return net.pool().dense(2).model("mobilenet_v1_025")


def anomaly_detection() -> onnx.ModelProto:
    """Autoencoder of ten linear layers on 640 features, 0.264 M multiply-accumulates."""
    net = _Builder([1, 640])
    for outputs in (*[128] * 4, 8, *[128] * 4):
        net.dense(outputs, relu=True)
    return net.dense(640).model("autoencoder")


NETWORKS = {
    "ic": image_classification,
    "kws": keyword_spotting,
    "vww": visual_wake_words,
    "ad": anomaly_detection,
}
