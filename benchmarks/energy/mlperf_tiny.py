"""The four networks of MLPerf Tiny in int8 with Q/DQ or in float32, and what some chips took for them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

Kind: TypeAlias = Literal["int4", "int8", "float32"]
MEASURED: dict[str, dict[str, tuple[float, float]]] = {
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
"""Microjoules an inference, and inferences a second, by network (result files of v1.0)."""
RECALLED: dict[str, dict[str, tuple[float, float]]] = {
    "ndp9120 1.1 V": {"ic": (139.4, 1 / 5.12e-3), "kws": (43.8, 1 / 1.48e-3), "vww": (97.2, 1 / 4.10e-3)},
}
"""The same, from memory of the v1.0 result files; not read again."""


class Builder:
    """Builds a chain of layers, every tensor through QuantizeLinear and DequantizeLinear."""

    def __init__(self, shape: list[int], kind: Kind) -> None:
        self.int8 = kind != "float32"
        self.code = TensorProto.INT4 if kind == "int4" else TensorProto.INT8
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [
            helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("z", self.code, [], [0]),
        ]
        self.type = self.code if self.int8 else TensorProto.FLOAT
        self.input = helper.make_tensor_value_info("x", self.type, shape)
        self.shape = shape
        self.last = "x"
        if self.int8:
            self.last = "x.d"
            self.nodes.append(helper.make_node("DequantizeLinear", ["x", "s", "z"], ["x.d"]))

    def _weight(self, name: str, shape: list[int]) -> str:
        if not self.int8:
            self.weights.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
            return name
        self.weights.append(helper.make_tensor(name, self.code, shape, np.ones(shape, np.int8)))
        self.nodes.append(helper.make_node("DequantizeLinear", [name, "s", "z"], [f"{name}.d"]))
        return f"{name}.d"

    def _quantized(self, name: str) -> str:
        if not self.int8:
            return name
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
        padded: bool = True,
    ) -> Builder:
        n, c, h, w = self.shape
        groups = c if depthwise else 1
        weight = self._weight(f"w{len(self.nodes)}", [channels, c // groups, *kernel])
        name = self._add(
            "Conv",
            [self.last, weight],
            kernel_shape=kernel,
            strides=[stride] * 2,
            group=groups,
            auto_pad="SAME_UPPER" if padded else "VALID",
        )
        if relu:
            name = self._add("Relu", [name])
        self.last = self._quantized(name)
        lost = (0, 0) if padded else (kernel[0] - 1, kernel[1] - 1)
        self.shape = [n, channels, -(-(h - lost[0]) // stride), -(-(w - lost[1]) // stride)]
        return self

    def residual(self, other: str) -> Builder:
        self.last = self._quantized(self._add("Relu", [self._add("Add", [self.last, other])]))
        return self

    def halved(self) -> Builder:
        """Take the largest of every two by two."""
        self.last = self._quantized(self._add("MaxPool", [self.last], kernel_shape=[2, 2], strides=[2, 2]))
        self.shape = [*self.shape[:2], self.shape[2] // 2, self.shape[3] // 2]
        return self

    def pool(self) -> Builder:
        self.last = self._quantized(self._add("GlobalAveragePool", [self.last]))
        self.nodes.append(helper.make_node("Flatten", [self.last], [f"{self.last}.f"]))
        self.last = f"{self.last}.f"
        self.shape = self.shape[:2]
        return self

    def dense(self, outputs: int, relu: bool = False) -> Builder:
        weight = self._weight(f"w{len(self.nodes)}", [self.shape[-1], outputs])
        name = self._add("MatMul", [self.last, weight])
        if relu:
            name = self._add("Relu", [name])
        self.last = self._quantized(name)
        self.shape = [self.shape[0], outputs]
        return self

    def model(self, name: str) -> onnx.ModelProto:
        if self.int8:
            self.nodes.pop()
            self.last = self.last.removesuffix(".d") + ".q"
        output = helper.make_tensor_value_info(self.last, self.type, self.shape)
        graph = helper.make_graph(self.nodes, name, [self.input], [output], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def image_classification(kind: Kind = "int8") -> onnx.ModelProto:
    """ResNet-8 on 32 x 32 images, 12.5 M multiply-accumulates."""
    net = Builder([1, 3, 32, 32], kind).conv(16, (3, 3))
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


def keyword_spotting(kind: Kind = "int8") -> onnx.ModelProto:
    """DS-CNN on 49 x 10 features, 2.66 M multiply-accumulates."""
    net = Builder([1, 1, 49, 10], kind).conv(64, (10, 4), 2)
    for _ in range(4):
        net.conv(64, (3, 3), depthwise=True).conv(64, (1, 1))
    return net.pool().dense(12).model("ds_cnn")


def visual_wake_words(kind: Kind = "int8") -> onnx.ModelProto:
    """MobileNetV1 of width 0.25 on 96 x 96 images, 7.49 M multiply-accumulates."""
    return mobilenet(0.25, 96, 2, kind)


def mobilenet(width: float, size: int, classes: int, kind: Kind = "int8") -> onnx.ModelProto:
    """MobileNetV1 with `width` times its channels, on images of `size`."""
    net = Builder([1, 3, size, size], kind).conv(round(32 * width), (3, 3), 2)
    for channels, stride in (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ):
        net.conv(net.shape[1], (3, 3), stride, depthwise=True).conv(round(channels * width), (1, 1))
    return net.pool().dense(classes).model("mobilenet_v1")


def anomaly_detection(kind: Kind = "int8") -> onnx.ModelProto:
    """Autoencoder of ten linear layers on 640 features, 0.264 M multiply-accumulates."""
    net = Builder([1, 640], kind)
    for outputs in (*[128] * 4, 8, *[128] * 4):
        net.dense(outputs, relu=True)
    return net.dense(640).model("autoencoder")


def cnv() -> onnx.ModelProto:
    """FINN's CNV on 32 x 32 images, 59.5 M multiply-accumulates, in the fewest bits that ONNX stores.

    Its layers are recalled from Umuroglu et al., "FINN", FPGA 2017.
    """
    net = Builder([1, 3, 32, 32], "int4")
    for channels in (64, 128, 256):
        net.conv(channels, (3, 3), padded=False).conv(channels, (3, 3), padded=False)
        if channels < 256:
            net.halved()
    return net.pool().dense(512, relu=True).dense(512, relu=True).dense(10).model("cnv")


NETWORKS = {
    "ic": image_classification,
    "kws": keyword_spotting,
    "vww": visual_wake_words,
    "ad": anomaly_detection,
}
