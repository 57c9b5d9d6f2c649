"""ResNet-50 in int8, on batches of 32 images; MLPerf does not say how large theirs were."""

from __future__ import annotations

import mlperf_tiny
import onnx

BATCH = 32


def model() -> onnx.ModelProto:
    """Return the network; the pooling after the first convolution is that convolution's stride."""
    net = mlperf_tiny.Builder([BATCH, 3, 224, 224], "int8").conv(64, (7, 7), 4)
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for index in range(blocks):
            stride = 2 if index == 0 and width > 64 else 1
            before, shape = net.last, net.shape
            net.conv(width, (1, 1)).conv(width, (3, 3), stride).conv(4 * width, (1, 1), relu=False)
            main, after = net.last, net.shape
            if index == 0:
                net.last, net.shape = before, shape
                net.conv(4 * width, (1, 1), stride, relu=False)
                before = net.last
            net.last, net.shape = main, after
            net.residual(before)
    return net.pool().dense(1000).model("resnet50")
